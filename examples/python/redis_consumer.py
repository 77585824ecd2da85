"""Processes the chats that labelcast publishes to a Redis Stream.

    pip install -r requirements.txt
    python redis_consumer.py --url redis://127.0.0.1:6379 --queue labelcast:4 --db consumer.db

Start as many consumers as you like, each with its own --consumer. With --partitions, start some for each of
QUEUE:{0}, QUEUE:{1} …, with one --db per partition. If a consumer loses its connection, it exits with an error
and must be restarted. On SIGTERM it exits after the current message.

labelcast puts each chat of a run on the stream once. An entry can still be delivered twice: if a consumer dies
between its work and its XACK, or takes longer than --claim-idle, another one claims the entry. So finished work
is recorded in the same transaction as the work itself.
"""
import argparse
import json
import signal
import socket
import time
import uuid
from collections import Counter

import redis

from store import Store


def work(run_id, chat_id, name):
    """Your own work. What it writes to `store.db` is written exactly once, even after crashes. Work elsewhere can
    happen twice: pass `run_id` and `chat_id` as an idempotency key."""
    store.db.execute("INSERT INTO worked VALUES (?, ?)", (run_id, chat_id))


def whole(run_id, chats):
    """Called once after a whole run was processed, in a transaction like `work`."""
    store.db.execute("INSERT INTO whole VALUES (?, ?)", (run_id, chats))


def body_of(fields):
    """Returns the content of an entry in any --format. Unknown members are ignored."""
    if "data" in fields:
        body = json.loads(fields["data"])
        return body["data"] if "specversion" in body else body
    return {key: json.loads(value) if key in ("chat_ids", "names") else value for key, value in fields.items()}


def handle(entry_id, fields):
    body = body_of(fields)
    run_id = body["run_id"]
    # A UUIDv7 starts with a time in milliseconds, here that of the snapshot.
    if time.time() - (uuid.UUID(run_id).int >> 80) / 1000 > args.max_age:
        counts["stale"] += 1
    else:
        with store.transaction():
            if "event_id" not in body:  # a change that a webhook reported is no part of a run
                store.has_run(run_id)
            # Skips markers (run.…), because the manifest has the same information, and chats that have left.
            if body.get("event", "label.chat.added") == "label.chat.added":
                ids = body["chat_ids"] if "chat_ids" in body else [body["chat_id"]]
                names = body.get("names") or [body.get("name")] * len(ids)
                for chat_id, name in zip(ids, names):
                    is_new = store.remember(run_id, chat_id)
                    counts["processed" if is_new else "repeats"] += 1
                    if is_new:
                        work(run_id, chat_id, name)
        time.sleep(args.pause)
    # Acknowledge only now, so that unfinished entries are delivered again.
    server.xack(args.queue, args.group, entry_id)


def claim():
    """Takes over entries that a consumer has read but not acknowledged within --claim-idle."""
    cursor = "0-0"
    while not stopping:
        cursor, entries, *_ = server.xautoclaim(
            args.queue, args.group, args.consumer, int(args.claim_idle * 1000), cursor, count=100)
        for entry_id, fields in entries:
            if fields and not stopping:  # Redis 6.2 also returns deleted entries, without fields
                counts["claimed"] += 1
                handle(entry_id, fields)
        if cursor == "0-0":
            return


def look_for_whole_runs():
    """Finds whole runs: the manifest is complete, and its last entry and all entries before it are acknowledged."""
    tag = args.queue[args.queue.index("{") + 1 : args.queue.index("}")] if "{" in args.queue else args.queue
    for run_id in store.unfinished():
        manifest = server.hgetall(f"labelcast:run:{{{tag}}}:{run_id}")
        if manifest.get("status") != "complete":
            continue
        if last := manifest["last_id"]:  # empty if the list is empty
            group = next(g for g in server.xinfo_groups(args.queue) if g["name"] == args.group)
            order = [[int(part) for part in entry_id.split("-")] for entry_id in (group["last-delivered-id"], last)]
            if order[0] < order[1] or server.xpending_range(args.queue, args.group, "-", last, 1):
                continue
        with store.transaction():
            if store.close_run(run_id):
                whole(run_id, int(manifest["chats"]))


parser = argparse.ArgumentParser()
parser.add_argument("--url", default="redis://127.0.0.1:6379")
parser.add_argument("--queue", required=True)
parser.add_argument("--group", default="example")
parser.add_argument("--consumer", default=socket.gethostname())
parser.add_argument("--db", default="consumer.db")
parser.add_argument("--max-age", type=float, default=86400, help="seconds; messages of older runs are dropped")
parser.add_argument("--claim-idle", type=float, default=60, help="seconds; must be longer than 100 messages take")
parser.add_argument("--pause", type=float, default=0, help="seconds after each message")
args = parser.parse_args()
counts, stopping = Counter(), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.append(True))
store = Store(args.db)
server = redis.Redis.from_url(args.url, decode_responses=True, protocol=2)
try:  # Start at 0: a group that starts at $ misses existing entries.
    server.xgroup_create(args.queue, args.group, id="0", mkstream=True)
except redis.ResponseError as error:
    if "BUSYGROUP" not in str(error):
        raise
next_claim = 0
while not stopping:
    if time.monotonic() >= next_claim:
        claim()
        next_claim = time.monotonic() + args.claim_idle / 2
    for _, entries in server.xreadgroup(args.group, args.consumer, {args.queue: ">"}, count=100, block=1000):
        for entry in entries:
            if not stopping:
                handle(*entry)
    look_for_whole_runs()
print(json.dumps(counts))
