"""Draws benches/results.svg from the results of scripts/bench. Arguments: JSON file, SVG file."""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

source, target = sys.argv[1:]
with open(source) as file:
    results = json.load(file)
# Same figures, same picture.
plt.rcParams.update({"svg.hashsalt": "labelcast", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
figure, (speed, memory, growth) = plt.subplots(1, 3, figsize=(12, 3.4))

packed = lambda row: f", {row['ids']} ids a message" if row["ids"] > 1 else ""
ours = {f"labelcast to {row['sink']}{packed(row)}": row for row in results["sinks"]}
rows = ours | results["peers"]
names = list(rows)[::-1]
colors = ["#1f77b4" if name in ours else "#b0b0b0" for name in names]
speed.barh(names, [rows[name]["rate"] for name in names], color=colors)
speed.set_xscale("log")
speed.set_xlabel("chats a second")
memory.barh(names, [rows[name]["peak"] / 1024 for name in names], color=colors)
memory.set_xlabel("peak memory, MiB")
memory.set_yticklabels([])

sizes = [row["chats"] for row in results["growth"]]
growth.plot(sizes, [row["peak"] / 1024 for row in results["growth"]], marker="o", label="peak memory, MiB")
growth.plot(sizes, [row["nanos_after_start"] / 100 for row in results["growth"]], marker="s", label="time a chat after start-up, 100 ns")
growth.set_xscale("log")
growth.set_ylim(bottom=0)
growth.set_xlabel("chats in the list, to Redis")
growth.legend(frameon=False)

figure.tight_layout()
figure.savefig(target, metadata={"Date": None})
