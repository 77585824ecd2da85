// Drives the dashboard of tests/browser/server.rs. Another driver has the same function, and is
// selected by DRIVER.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

// Starts a dashboard. `port` is that of an earlier one, to start it again. Returns
// - `url`, without a path;
// - `add(name, count)`, which adds chats to a label by events;
// - `fail(error)`, which makes the state unreadable (not every driver can: null there);
// - `stop()`.
export async function start({ token, port = 0, labels = "" } = {}) {
  const options = [`127.0.0.1:${port}`, ...(labels ? [String(labels)] : [])];
  const env = { ...process.env, LABELCAST_DASHBOARD_TOKEN: token ?? "" };
  const server = spawn(process.env.DASHBOARD, options, { env, stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((done) => server.once("exit", done));
  const url = await new Promise((done, failed) => {
    createInterface({ input: server.stdout }).once("line", done);
    server.once("exit", () => failed(new Error("the server has ended")));
  });
  const send = (change) => server.stdin.write(`${JSON.stringify(change)}\n`);
  return {
    url,
    port: new URL(url).port,
    add: (name, count) => send({ add: { [name]: count } }),
    fail: (error) => send({ error }),
    stop: () => {
      server.kill("SIGKILL");
      return ended;
    },
  };
}
