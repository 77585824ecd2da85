// Tests the dashboard in a browser: `scripts/test-browser`.
//
// The tests take numbers and names from /api/labels and change them through a driver, so that they
// also run against another server. DRIVER names the module, by default ./scripted.mjs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { start } = await import(process.env.DRIVER ?? "./scripted.mjs");
const pictures = process.env.PICTURES;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TOKEN = "a token of the browser tests";
const SIZES = {
  phone: { width: 360, height: 740 },
  desktop: { width: 1440, height: 900 },
  wall: { width: 3840, height: 2160 },
};

let browser;
let server;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  server = await start();
});
after(async () => {
  await server?.stop();
  await browser?.close();
});

// Opens a page, and afterwards checks that all requests went to its own server and that nothing
// broke the content security policy.
async function visit(options, look, { base = server.url, isLogin = false } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const strangers = [];
  const problems = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== base) strangers.push(request.url());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // A server that is away, or asks for a login, is part of the tests.
    const isExpected = /Failed to load resource|ERR_/.test(message.text());
    if (message.type() === "error" && !isExpected) problems.push(message.text());
  });
  try {
    await page.goto(`${base}/`);
    if (options.javaScriptEnabled !== false && !isLogin) await isLive(page);
    await look(page, context);
  } finally {
    await context.close();
  }
  assert.deepEqual(strangers, [], "requests that leave the host");
  assert.deepEqual(problems, []);
}

const isLive = (page) => page.locator("#connection.live").waitFor();
const labels = async () => (await fetch(`${server.url}/api/labels`)).json();
const shown = (page) =>
  page.$$eval("#chats tr", (rows) =>
    rows.map((row) => ({
      id: row.dataset.key,
      name: row.querySelector("bdi").textContent,
      chats: Number(row.cells[1].firstChild.textContent.replaceAll(",", "")),
      width: row.querySelector("rect").getBoundingClientRect().width,
      space: row.querySelector(".bar").getBoundingClientRect().width,
      color: row.querySelector("rect").getAttribute("fill"),
    })),
  );

test("bars show the counts in the labels' own colours, the largest first", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    const expected = (await labels()).sort((a, b) => (b.chats ?? -1) - (a.chats ?? -1));
    const rows = await shown(page);
    assert.deepEqual(rows.map((row) => row.id), expected.map((label) => label.label_id));
    const most = rows[0];
    for (const [index, row] of rows.entries()) {
      const { chats, color_hex } = expected[index];
      assert.equal(row.color, color_hex.toLowerCase(), row.name);
      if (chats === null) continue;
      assert.equal(row.chats, chats, row.name);
      const proportion = (row.width / row.space) * (most.space / most.width);
      assert.ok(Math.abs(proportion - chats / most.chats) < 0.01, `${row.name}: ${proportion}`);
    }
  }));

test("a change moves a bar within a second, and past another one", () =>
  visit({ viewport: SIZES.desktop, reducedMotion: "reduce" }, async (page) => {
    const rows = await shown(page);
    // The two neighbours that are closest to each other.
    const gaps = rows.slice(1, 8).map((row, index) => ({ row, above: rows[index], gap: rows[index].chats - row.chats }));
    const { row, above, gap } = gaps.sort((a, b) => a.gap - b.gap)[0];
    await page.evaluate((id) => {
      window.sameRow = [...document.querySelectorAll("#chats tr")].find((it) => it.dataset.key === id);
    }, row.id);
    server.add(row.name, gap + 1);
    await page.waitForFunction(
      ([id, above]) => {
        const keys = [...document.querySelectorAll("#chats tr")].map((it) => it.dataset.key);
        return keys.indexOf(id) < keys.indexOf(above);
      },
      [row.id, above.id],
      { timeout: 1000 },
    );
    const moved = (await shown(page)).find((it) => it.id === row.id);
    assert.equal(moved.chats, row.chats + gap + 1);
    assert.ok(moved.width > row.width);
    assert.ok(await page.evaluate(() => window.sameRow.isConnected), "the row was moved, not replaced");
  }));

test("ages count on, and open parts stay open", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    const age = page.locator("#age");
    const first = await age.textContent();
    assert.match(first, /^Updated \d+ (s|min) ago$/);
    await page.waitForFunction((text) => document.getElementById("age").textContent !== text, first);
    await page.getByText("Show as a table").click();
    const table = page.locator("#minute-rows tr").first();
    await table.waitFor({ state: "visible" });
    const before = await page.locator("#numbers").textContent();
    server.add((await shown(page))[0].name, 1);
    await page.waitForFunction((text) => document.getElementById("numbers").textContent !== text, before);
    assert.ok(await table.isVisible());
  }));

test("an unreadable state is at the top", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    if (!server.fail) return;
    server.fail("cannot reach the broker");
    const first = page.locator("#attention li").first();
    await first.getByText("cannot reach the broker").waitFor();
    server.fail(null);
    await page.getByText("cannot reach the broker").waitFor({ state: "detached" });
  }));

test("the page says that the connection is lost, and survives a restart of the server", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    await server.stop();
    const status = page.getByRole("status");
    await status.getByText("Connection lost, retrying").waitFor();
    server = await start({ port: server.port });
    await isLive(page);
    const [first] = await shown(page);
    server.add(first.name, 1);
    const number = (first.chats + 1).toLocaleString("en");
    await page.locator("#chats").getByText(number).waitFor();
  }));

test("a stranger sees nothing", async () => {
  const [label] = await labels();
  const proxied = { extraHTTPHeaders: { "X-Forwarded-For": "203.0.113.7" } };
  const look = async (page) => {
    const text = await page.content();
    assert.match(text, /LABELCAST_DASHBOARD_TOKEN/);
    assert.ok(!text.includes(label.label_name));
  };
  await visit(proxied, look, { isLogin: true });
  // A name of somebody else that resolves to loopback.
  const rebound = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
  });
  const page = await rebound.newPage();
  await page.goto(`http://rebound.example:${server.port}/`);
  await look(page);
  await rebound.close();
});

test("with a token, a login shows the page through a proxy", async () => {
  const guarded = await start({ token: TOKEN });
  const proxied = { extraHTTPHeaders: { "X-Forwarded-For": "203.0.113.7" }, viewport: SIZES.desktop };
  const look = async (page, context) => {
    assert.ok(!(await page.content()).includes("Chats by label"));
    await accessible(page, "login");
    await page.getByLabel("Dashboard token").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("This is not the token.").waitFor();
    await page.getByLabel("Dashboard token").fill(TOKEN);
    await page.getByRole("button", { name: "Log in" }).click();
    await isLive(page);
    const [cookie] = await context.cookies();
    assert.equal(cookie.httpOnly, true);
    assert.equal(cookie.sameSite, "Strict");
    assert.ok(!cookie.value.includes(TOKEN));
    // Another token after a restart.
    await guarded.stop();
    const changed = await start({ token: "another token", port: guarded.port });
    await page.getByRole("link", { name: "Log in again" }).waitFor();
    await changed.stop();
  };
  await visit(proxied, look, { base: guarded.url, isLogin: true });
});

test("the page is complete with scripts off", () =>
  visit({ javaScriptEnabled: false, viewport: SIZES.desktop }, async (page) => {
    const rows = await page.locator("#chats tr").count();
    assert.equal(rows, (await labels()).length);
    for (const id of ["#attention li", "#numbers dd", "#minutes svg", "#queues tr", "#runs tr"]) {
      assert.ok(await page.locator(id).first().isVisible(), id);
    }
    assert.match(await page.locator("#age").textContent(), /^Updated \d+ (s|min) ago$/);
    await page.getByText("Load again").waitFor();
  }));

test("what is enriched has a table, those with the most records first", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    assert.ok(await page.getByRole("heading", { name: "Enriched" }).isVisible());
    const rows = await page.$$eval("#enriched tr", (rows) => rows.map((row) => [...row.cells].map((it) => it.textContent)));
    assert.deepEqual(rows, [
      ["labelcast:1", "1,020", "20", "2"],
      ["labelcast:2", "510", "10", "1"],
      ["labelcast:3", "339", "6", "0"],
    ]);
  }));

test("the keyboard reaches everything", () =>
  visit({ viewport: SIZES.desktop }, async (page) => {
    const reached = [];
    for (let press = 0; press < 12; press += 1) {
      await page.keyboard.press("Tab");
      reached.push(
        await page.evaluate(() => {
          const { tagName, textContent, ariaLabel } = document.activeElement;
          const labelled = document.activeElement.getAttribute("aria-labelledby");
          return labelled ?? ariaLabel ?? (tagName === "BODY" ? "" : textContent);
        }),
      );
    }
    assert.equal(reached[0], "Skip to the numbers");
    for (const wanted of ["chats-title", "queues-title", "runs-title", "Show as a table"]) {
      assert.ok(reached.includes(wanted), `${wanted}: ${reached}`);
    }
  }));

// Fails on anything that axe finds. It is run by the debugger, so the page's policy stays as it is.
async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(found, [], what);
}

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ["light", "dark"]) {
    test(`${size}, ${colorScheme}: accessible, and nothing is wider than the screen`, () =>
      visit({ viewport, colorScheme, reducedMotion: "reduce" }, async (page) => {
        await accessible(page, `${size}, ${colorScheme}`);
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= viewport.width, `${width} pixels`);
        if (pictures) {
          const path = `${pictures}/dashboard-${size}-${colorScheme}.png`;
          await page.screenshot({ path, fullPage: size !== "wall" });
        }
      }));
  }
}

test("500 labels", async () => {
  const large = await start({ labels: 500 });
  const look = async (page) => {
    assert.equal(await page.locator("#chats tr").count(), 500);
    const [first] = await shown(page);
    large.add(first.name, 1);
    const number = (first.chats + 1).toLocaleString("en");
    await page.locator("#chats tr").first().getByText(number).waitFor({ timeout: 1000 });
    if (pictures) await page.screenshot({ path: `${pictures}/dashboard-500.png` });
  };
  await visit({ viewport: SIZES.desktop }, look, { base: large.url });
  await large.stop();
});

test("the picture of the documents", { skip: !pictures }, async () => {
  const small = await start({ labels: 9 });
  const viewport = { width: 1160, height: 800 };
  const look = async (page) => {
    const queues = await page.locator("section", { has: page.locator("#queues") }).boundingBox();
    const clip = { x: 0, y: 0, width: viewport.width, height: queues.y + queues.height + 16 };
    await page.screenshot({ path: `${pictures}/dashboard.png`, fullPage: true, clip });
  };
  await visit({ viewport }, look, { base: small.url });
  await small.stop();
});
