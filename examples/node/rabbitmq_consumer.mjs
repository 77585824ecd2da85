// Processes the chats that labelcast publishes to a RabbitMQ queue. Needs Node 22.13 or later, for node:sqlite.
//
//     npm install
//     node rabbitmq_consumer.mjs --url amqp://guest:guest@127.0.0.1:5672/%2f --queue labelcast:4 --db consumer.db
//
// Start as many consumers as you like. On SIGTERM a consumer exits after the current message, and its
// unacknowledged messages return to the queue. If it loses its connection, it exits with an error and must be
// restarted.
//
// Delivery is at least once: after a crash labelcast sends up to 1,024 messages again, with the same
// message_id, and the broker redelivers unacknowledged messages. So finished work is recorded by message_id, in
// the same transaction as the work itself. RabbitMQ has no manifest of a run: whole() is only called if
// labelcast runs with --marker.
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { connect } from "amqplib";
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

async function handle({ properties, content }) {
  let body = JSON.parse(content);
  if (properties.contentType === "application/cloudevents+json") body = body.data;
  const runId = body.run_id;
  // A UUIDv7 starts with a time in milliseconds, here that of the snapshot.
  if (Date.now() - Number.parseInt(runId.replaceAll("-", "").slice(0, 12), 16) > args["max-age"] * 1000) {
    counts.stale += 1;
    return;
  }
  store.transaction(() => {
    if (body.event_id === undefined) store.hasRun(runId); // a change that a webhook reported is no part of a run
    if (properties.type === "labelcast.chat" || body.event === "label.chat.added") {
      handleChats(runId, body, properties.messageId);
    } else if (properties.headers?.event === "run.completed") {
      store.expect(runId, body.chats);
    }
    // The marker comes last, but other consumers may still be processing earlier messages. If the list changed
    // during the run, more chats than the marker says are processed, because chats of both lists are on the
    // queue.
    const chats = store.expected(runId);
    if (chats != null && store.count(runId) >= chats && store.closeRun(runId)) whole(runId, chats);
  });
  if (args.pause > 0) await sleep(args.pause * 1000);
}

function handleChats(runId, body, messageId) {
  // A packed message's id depends on its position in the list, and its chats may differ after a resume. So its
  // chats are identified by the ids that they would have as single messages.
  const keyOf = (chatId) => (body.chat_ids ? `${runId}:${chatId}` : messageId);
  (body.chat_ids ?? [body.chat_id]).forEach((chatId, index) => {
    const isNew = store.remember(runId, keyOf(chatId));
    counts[isNew ? "processed" : "repeats"] += 1;
    if (isNew) work(runId, chatId, (body.names ?? [body.name])[index]);
  });
}

const text = (value) => ({ type: "string", default: value });
const { values: args } = parseArgs({
  options: {
    url: text("amqp://guest:guest@127.0.0.1:5672/%2f"),
    queue: text(),
    "queue-type": text("quorum"), // as for labelcast: quorum or classic
    prefetch: text("100"),
    db: text("consumer.db"),
    "max-age": text("86400"), // seconds; messages of older runs are dropped
    pause: text("0"), // seconds after each message
  },
});
const counts = { processed: 0, repeats: 0, stale: 0 };
const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => stop.abort());

const store = new Store(args.db);
const connection = await connect(args.url);
const channel = await connection.createChannel();
// The same declaration as in labelcast, so that either program can start first.
await channel.assertQueue(args.queue, { durable: true, arguments: { "x-queue-type": args["queue-type"] } });
await channel.prefetch(Number(args.prefetch));
let last = Promise.resolve(); // messages are processed one after the other, in the order of the queue
await channel.consume(args.queue, (message) => {
  last = last.then(async () => {
    if (stop.signal.aborted) return;
    if (!message) throw new Error("the queue was deleted");
    await handle(message);
    // Acknowledge only now, so that unfinished messages are delivered again.
    channel.ack(message);
  });
  last.catch((error) => stop.abort(error));
});
connection.on("error", (error) => stop.abort(error));
connection.on("close", () => stop.abort(new Error("the connection was closed")));
if (!stop.signal.aborted) await once(stop.signal, "abort");
await last;
if (stop.signal.reason.name !== "AbortError") throw stop.signal.reason;
connection.removeAllListeners("close");
await connection.close();
console.log(JSON.stringify(counts));
