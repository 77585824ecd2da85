// Tests the dashboard of the program itself, with signed webhooks: `scripts/test-browser`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const program = process.env.LABELCAST;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SECRET = "a secret of the browser tests";
// The stand-in's label "VIP" has this many chats.
const CHATS = 40;

let browser;
let folder;
let api;
let server;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  folder = mkdtempSync(join(tmpdir(), "labelcast-"));
  api = await standIn();
  server = await listen(0);
  await isExact();
});
after(async () => {
  await server?.stop();
  await api?.stop();
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

// Starts the program, and waits for a line of its output that matches.
async function run(args, output, pattern, env = {}) {
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((done) => child.once("exit", done));
  const found = await new Promise((done, failed) => {
    createInterface({ input: child[output] }).on("line", (line) => {
      const match = line.match(pattern);
      if (match) done(match[1]);
    });
    ended.then((code) => failed(new Error(`it has ended with ${code}`)));
  });
  child[output === "stdout" ? "stderr" : "stdout"].resume();
  const stop = () => {
    child.kill("SIGTERM");
    return ended;
  };
  return { found, stop };
}

async function standIn() {
  const args = ["demo", "--serve", "--chats", String(CHATS)];
  const { found, stop } = await run(args, "stdout", /listens on (http:\S+)/);
  return { url: found, stop };
}

async function listen(port) {
  const args = ["listen", "--api-url", api.url, "--instance-id", "demo", "--bind", `127.0.0.1:${port}`];
  args.push("--sink", `file:${folder}/chats.jsonl`, "--state", `file:${folder}/state.sqlite`, "--log-format", "json");
  const env = { WAWP_ACCESS_TOKEN: "demo-token", LABELCAST_WEBHOOK_SECRET: SECRET };
  const { found, stop } = await run(args, "stderr", /"address":"([^"]+)"/, env);
  return { url: `http://${found}`, port: found.split(":")[1], stop };
}

async function isExact() {
  for (;;) {
    const ready = await (await fetch(`${server.url}/readyz`)).json();
    if (ready.labels === 2 && ready.labels_not_exact.length === 0) return;
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function add(chat) {
  const payload = { labelId: "1", chatId: chat, label: null };
  const body = JSON.stringify({ id: `evt_${chat}`, timestamp: Date.now(), event: "label.chat.added", session: "demo", payload });
  const signature = createHmac("sha512", SECRET).update(body).digest("hex");
  const headers = { "content-type": "application/json", "x-webhook-hmac": signature };
  const answer = await fetch(`${server.url}/webhook`, { method: "POST", headers, body });
  assert.equal(answer.status, 200, await answer.text());
}

const chats = (page) =>
  page.$$eval("#chats tr", (rows) =>
    Object.fromEntries(rows.map((row) => [row.querySelector("bdi").textContent, row.cells[1].firstChild.textContent])),
  );

// Waits until the page shows this many chats of the label.
const shows = (page, count, timeout) =>
  page.waitForFunction(
    (count) =>
      [...document.querySelectorAll("#chats tr")].some(
        (row) => row.querySelector("bdi").textContent === "VIP" && row.cells[1].firstChild.textContent === String(count),
      ),
    count,
    { timeout },
  );

test("counts of the lists are shown, an event moves one within a second, and a restart is survived", async () => {
  const page = await browser.newPage();
  const strangers = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== server.url) strangers.push(request.url());
  });
  await page.goto(server.url);
  await page.locator("#connection.live").waitFor();
  await shows(page, CHATS, 5000);
  assert.deepEqual(await chats(page), { VIP: String(CHATS), Pending: "10" });
  // No worker is in this process.
  assert.ok(!(await page.locator("#enriched-title").isVisible()));
  await add("1555@c.us");
  await shows(page, CHATS + 1, 1000);
  // The same chat again moves nothing, and the next one does.
  await add("1555@c.us");
  await add("1556@c.us");
  await shows(page, CHATS + 2, 1000);

  assert.equal(await server.stop(), 0);
  await page.locator("#connection:not(.live)").waitFor();
  server = await listen(server.port);
  await page.locator("#connection.live").waitFor();
  await add("1557@c.us");
  await shows(page, CHATS + 3, 5000);
  assert.deepEqual(strangers, [], "requests that leave the host");

  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations, []);
  const text = await page.content();
  assert.ok(!text.includes("@c.us") && !text.includes("1555"), "an id of a chat is on the page");
  await page.close();
});

test("a stranger sees nothing", async () => {
  for (const path of ["/", "/api/labels", "/api/runs", "/events", "/metrics"]) {
    const answer = await fetch(server.url + path, { headers: { "x-forwarded-for": "203.0.113.7" } });
    const text = await answer.text();
    assert.equal(answer.status, 403, path);
    assert.ok(!text.includes("VIP") && !text.includes(String(CHATS)), `${path}: ${text}`);
  }
});
