// Works through the chats that labelcast puts on a Redis Stream. Needs Node 22.13 or later, for node:sqlite.
//
//     npm install
//     node redis_consumer.mjs --url redis://127.0.0.1:6379 --queue labelcast:4 --db consumer.db
//
// Start as many as you like, each with a --consumer of its own; with --partitions, some for each QUEUE:{0},
// QUEUE:{1} … with a --db of its own. SIGTERM ends it after the message in hand; on an error it ends too:
// let what runs it start it again.
//
// labelcast puts each chat of a run on the stream once. An entry can still be delivered twice: when a consumer
// dies between its work and its XACK, or takes longer than --claim-idle, another one claims it. So what is
// done is remembered, in the transaction of the work itself.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { Store } from "./store.mjs";

// Your own work. What it writes to `store` is there once, also through crashes. What it does elsewhere can
// happen twice: hand `runId` and `chatId` on as a key by which the other side knows it.
function work(runId, chatId, name) {
  store.run("INSERT INTO worked VALUES (?, ?)", runId, chatId);
}

// Called once when all of a run is worked through; in a transaction, as `work` is.
function whole(runId, chats) {
  store.run("INSERT INTO whole VALUES (?, ?)", runId, chats);
}

// What an entry says, whichever --format it is in. What is not known in it is ignored.
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
  // A UUIDv7 begins with its time in milliseconds, here that of the snapshot.
  if (Date.now() - Number.parseInt(runId.replaceAll("-", "").slice(0, 12), 16) > args["max-age"] * 1000) {
    counts.stale += 1;
  } else {
    store.transaction(() => {
      store.hasRun(runId);
      if (body.event !== undefined) return; // run.started or run.completed, which the manifest makes up for
      (body.chat_ids ?? [body.chat_id]).forEach((chatId, index) => {
        const isNew = store.remember(runId, chatId);
        counts[isNew ? "processed" : "repeats"] += 1;
        if (isNew) work(runId, chatId, (body.names ?? [body.name])[index]);
      });
    });
    if (args.pause > 0) await sleep(args.pause * 1000);
  }
  // Only now: what is not acknowledged is delivered again.
  await server.xack(args.queue, args.group, entryId);
}

// Takes over what some consumer has read, and not acknowledged for --claim-idle.
async function claim() {
  let [cursor, entries] = ["0-0", []];
  do {
    const idle = args["claim-idle"] * 1000;
    [cursor, entries] = await server.xautoclaim(args.queue, args.group, args.consumer, idle, cursor, "COUNT", 100);
    for (const entry of entries) {
      if (!entry?.[1] || stopping) continue; // Redis 6.2 also gives those that are deleted, without fields
      counts.claimed += 1;
      await handle(entry);
    }
  } while (cursor !== "0-0" && !stopping);
}

// A run is through when its manifest is complete, and its last entry and all before acknowledged.
async function lookForWholeRuns() {
  const tag = /\{([^}]+)\}/.exec(args.queue)?.[1] ?? args.queue;
  for (const runId of store.unfinished()) {
    const manifest = await server.hgetall(`labelcast:run:{${tag}}:${runId}`);
    if (manifest.status !== "complete") continue;
    const last = manifest.last_id; // empty where the list is
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
    "max-age": text("86400"), // seconds; what is of an older run is dropped
    "claim-idle": text("60"), // seconds; more than 100 messages take
    pause: text("0"), // seconds after each message
  },
});
const counts = { processed: 0, repeats: 0, stale: 0, claimed: 0 };
let stopping = false;
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (stopping = true));

const store = new Store(args.db);
const server = new Redis(args.url, { replyMapping: "resp3", retryStrategy: null, maxRetriesPerRequest: 0 });
server.on("error", (error) => console.error(error.message)); // what waits for the server fails with it
await server.xgroup("CREATE", args.queue, args.group, "0", "MKSTREAM").catch((error) => {
  // From 0: a group that begins at $ misses what is there already.
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
