// Processes the chats that labelcast publishes to a Redis Stream. Needs Node 22.13 or later, for node:sqlite.
//
//     npm install
//     node redis_consumer.mjs --url redis://127.0.0.1:6379 --queue labelcast:4 --db consumer.db
//
// Start as many consumers as you like, each with its own --consumer. With --partitions, start some for each of
// QUEUE:{0}, QUEUE:{1} …, with one --db per partition. On SIGTERM a consumer exits after the current message.
// On an error it exits too and must be restarted.
//
// labelcast puts each chat of a run on the stream once. An entry can still be delivered twice: if a consumer
// dies between its work and its XACK, or takes longer than --claim-idle, another one claims the entry. So
// finished work is recorded in the same transaction as the work itself.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { Store } from "./store.mjs";

// Your own work. What it writes to `store` is written exactly once, even after crashes. Work elsewhere can
// happen twice: pass `runId` and `chatId` as an idempotency key.
function work(runId, chatId, name) {
  store.run("INSERT INTO worked VALUES (?, ?)", runId, chatId);
}

// Called once after a whole run was processed, in a transaction like `work`.
function whole(runId, chats) {
  store.run("INSERT INTO whole VALUES (?, ?)", runId, chats);
}

// Returns the content of an entry in any --format. Unknown members are ignored.
function bodyOf(fields) {
  if (fields.data !== undefined) {
    const body = JSON.parse(fields.data);
    return body.specversion === undefined ? body : body.data;
  }
  for (const key of ["chat_ids", "names"]) if (fields[key] !== undefined) fields[key] = JSON.parse(fields[key]);
  return fields;
}

async function handle([entryId, pairs]) {
  const fields = {};
  for (let at = 0; at < pairs.length; at += 2) fields[pairs[at]] = pairs[at + 1];
  const body = bodyOf(fields);
  const runId = body.run_id;
  // A UUIDv7 starts with a time in milliseconds, here that of the snapshot.
  if (Date.now() - Number.parseInt(runId.replaceAll("-", "").slice(0, 12), 16) > args["max-age"] * 1000) {
    counts.stale += 1;
  } else {
    store.transaction(() => {
      if (body.event_id === undefined) store.hasRun(runId); // a change that a webhook reported is no part of a run
      // Skips markers (run.…), because the manifest has the same information, and chats that have left.
      if ((body.event ?? "label.chat.added") !== "label.chat.added") return;
      (body.chat_ids ?? [body.chat_id]).forEach((chatId, index) => {
        const isNew = store.remember(runId, chatId);
        counts[isNew ? "processed" : "repeats"] += 1;
        if (isNew) work(runId, chatId, (body.names ?? [body.name])[index]);
      });
    });
    if (args.pause > 0) await sleep(args.pause * 1000);
  }
  // Acknowledge only now, so that unfinished entries are delivered again.
  await server.xack(args.queue, args.group, entryId);
}

// Takes over entries that a consumer has read but not acknowledged within --claim-idle.
async function claim() {
  let [cursor, entries] = ["0-0", []];
  do {
    const idle = args["claim-idle"] * 1000;
    [cursor, entries] = await server.xautoclaim(args.queue, args.group, args.consumer, idle, cursor, "COUNT", 100);
    for (const entry of entries) {
      if (!entry?.[1] || stopping) continue; // Redis 6.2 also returns deleted entries, without fields
      counts.claimed += 1;
      await handle(entry);
    }
  } while (cursor !== "0-0" && !stopping);
}

// A run is whole when its manifest is complete, and its last entry and all entries before it are acknowledged.
async function lookForWholeRuns() {
  const tag = /\{([^}]+)\}/.exec(args.queue)?.[1] ?? args.queue;
  for (const runId of store.unfinished()) {
    const manifest = await server.hgetall(`labelcast:run:{${tag}}:${runId}`);
    if (manifest.status !== "complete") continue;
    const last = manifest.last_id; // empty if the list is empty
    if (last) {
      const groups = await server.xinfo("GROUPS", args.queue);
      const read = groups.find((group) => group.name === args.group)["last-delivered-id"];
      const [[time, number], [lastTime, lastNumber]] = [read, last].map((id) => id.split("-").map(Number));
      if (time < lastTime || (time === lastTime && number < lastNumber)) continue;
      if ((await server.xpending(args.queue, args.group, "-", last, 1)).length > 0) continue;
    }
    store.transaction(() => {
      if (store.closeRun(runId)) whole(runId, Number(manifest.chats));
    });
  }
}

const text = (value) => ({ type: "string", default: value });
const { values: args } = parseArgs({
  options: {
    url: text("redis://127.0.0.1:6379"),
    queue: text(),
    group: text("example"),
    consumer: text(hostname()),
    db: text("consumer.db"),
    "max-age": text("86400"), // seconds; messages of older runs are dropped
    "claim-idle": text("60"), // seconds; must be longer than 100 messages take
    pause: text("0"), // seconds after each message
  },
});
const counts = { processed: 0, repeats: 0, stale: 0, claimed: 0 };
let stopping = false;
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (stopping = true));

const store = new Store(args.db);
const server = new Redis(args.url, { replyMapping: "resp3", retryStrategy: null, maxRetriesPerRequest: 0 });
server.on("error", (error) => console.error(error.message)); // pending commands fail with this error
await server.xgroup("CREATE", args.queue, args.group, "0", "MKSTREAM").catch((error) => {
  // Start at 0: a group that starts at $ misses existing entries.
  if (!error.message.includes("BUSYGROUP")) throw error;
});
let nextClaim = 0;
while (!stopping) {
  if (performance.now() >= nextClaim) {
    await claim();
    nextClaim = performance.now() + args["claim-idle"] * 500;
  }
  const from = ["COUNT", 100, "BLOCK", 1000, "STREAMS", args.queue, ">"];
  const read = await server.xreadgroup("GROUP", args.group, args.consumer, ...from);
  for (const entry of read?.[args.queue] ?? []) if (!stopping) await handle(entry);
  await lookForWholeRuns();
}
await server.quit();
console.log(JSON.stringify(counts));
