// Processes the contacts that `labelcast enrich` publishes, from Redis or RabbitMQ. Needs Node 22.13 or later, for
// node:sqlite.
//
//     npm install
//     node contacts.mjs --url redis://127.0.0.1:6379 --queue vip-contacts --db contacts.db
//     node contacts.mjs --url amqp://guest:guest@127.0.0.1:5672/%2f --queue vip-contacts --db contacts.db
//
// Start as many consumers as you like, on Redis each with its own --consumer. On an error a consumer exits and must
// be restarted. On SIGTERM it exits after the current message and prints its counts.
//
// A record can be delivered twice. So finished work is recorded by run (or event) and chat, in the same transaction
// as the work itself.
import { once } from "node:events";
import { hostname } from "node:os";
import { parseArgs } from "node:util";
import { Store } from "./store.mjs";

// Your own work. What it writes to `store` is written exactly once, even after crashes. Work elsewhere can happen
// twice: pass `origin` and the chat id as an idempotency key.
function work(origin, contact) {
  store.run("INSERT INTO worked VALUES (?, ?)", origin, contact.chat_id);
}

// Returns the record in an entry of a stream, in any --format. Unknown members are ignored.
function contactOf(pairs) {
  const fields = {};
  for (let at = 0; at < pairs.length; at += 2) fields[pairs[at]] = pairs[at + 1];
  if (fields.data !== undefined) return contactOfJson(fields.data);
  // Redis has no booleans and no null.
  for (const key of ["found", "is_business"]) if (fields[key] !== undefined) fields[key] = fields[key] === "true";
  return fields;
}

function contactOfJson(text) {
  const body = JSON.parse(text);
  return body.specversion === undefined ? body : body.data;
}

function handle(contact) {
  // Not found, or (null or absent) not asked for, because groups, newsletters and broadcasts have no contact.
  if (!contact.found) {
    counts.skipped += 1;
    return;
  }
  // Empty for a chat that named neither run nor event.
  const origin = contact.event_id ?? contact.run_id ?? "";
  store.transaction(() => {
    const isNew = store.remember(origin, contact.chat_id);
    counts[isNew ? "processed" : "repeats"] += 1;
    if (isNew) work(origin, contact);
  });
}

async function consumeRedis() {
  const { Redis } = await import("ioredis");
  const server = new Redis(args.url, { replyMapping: "resp3", retryStrategy: null, maxRetriesPerRequest: 0 });
  server.on("error", (error) => console.error(error.message)); // pending commands fail with this error
  await server.xgroup("CREATE", args.queue, args.group, "0", "MKSTREAM").catch((error) => {
    // Start at 0: a group that starts at $ misses existing entries.
    if (!error.message.includes("BUSYGROUP")) throw error;
  });
  const handleEntries = async (entries) => {
    for (const entry of entries) {
      if (!entry?.[1] || stop.signal.aborted) continue; // Redis 6.2 also returns deleted entries, without fields
      handle(contactOf(entry[1]));
      // Acknowledge only now, so that unfinished entries are delivered again.
      await server.xack(args.queue, args.group, entry[0]);
    }
  };
  const idle = args["claim-idle"] * 1000;
  let nextClaim = 0;
  while (!stop.signal.aborted) {
    if (performance.now() >= nextClaim) {
      // Take over entries that a consumer has read but not acknowledged within --claim-idle.
      let [cursor, entries] = ["0-0", []];
      do {
        [cursor, entries] = await server.xautoclaim(args.queue, args.group, args.consumer, idle, cursor, "COUNT", 100);
        await handleEntries(entries);
      } while (cursor !== "0-0" && !stop.signal.aborted);
      nextClaim = performance.now() + idle / 2;
    }
    const from = ["COUNT", 100, "BLOCK", 1000, "STREAMS", args.queue, ">"];
    const read = await server.xreadgroup("GROUP", args.group, args.consumer, ...from);
    await handleEntries(read?.[args.queue] ?? []);
  }
  await server.quit();
}

async function consumeRabbitmq() {
  const { connect } = await import("amqplib");
  const connection = await connect(args.url);
  const channel = await connection.createChannel();
  // The same declaration as in labelcast, so that either program can start first.
  await channel.assertQueue(args.queue, { durable: true, arguments: { "x-queue-type": args["queue-type"] } });
  await channel.prefetch(100);
  await channel.consume(args.queue, (message) => {
    if (stop.signal.aborted) return;
    try {
      if (!message) throw new Error("the queue was deleted");
      handle(contactOfJson(message.content));
      // Acknowledge only now, so that unfinished messages are delivered again.
      channel.ack(message);
    } catch (error) {
      stop.abort(error);
    }
  });
  connection.on("error", (error) => stop.abort(error));
  connection.on("close", () => stop.abort(new Error("the connection was closed")));
  if (!stop.signal.aborted) await once(stop.signal, "abort");
  if (stop.signal.reason.name !== "AbortError") throw stop.signal.reason;
  connection.removeAllListeners("close");
  await connection.close();
}

const text = (value) => ({ type: "string", default: value });
const { values: args } = parseArgs({
  options: {
    url: text("redis://127.0.0.1:6379"),
    queue: text(),
    group: text("example"), // Redis
    consumer: text(hostname()), // Redis
    "claim-idle": text("60"), // Redis; seconds; longer than 100 messages take
    "queue-type": text("quorum"), // RabbitMQ; as for labelcast: quorum or classic
    db: text("contacts.db"),
  },
});
const counts = { processed: 0, repeats: 0, skipped: 0 };
const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => stop.abort());

const store = new Store(args.db);
await (args.url.startsWith("amqp") ? consumeRabbitmq() : consumeRedis());
console.log(JSON.stringify(counts));
