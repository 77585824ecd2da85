"""Works through the chats that labelcast puts on a RabbitMQ queue.

    pip install -r requirements.txt
    python rabbitmq_consumer.py --url amqp://guest:guest@127.0.0.1:5672/%2f --queue labelcast:4 --db consumer.db

Start as many as you like. One that loses its connection ends with an error: let what runs it start it
again. SIGTERM ends it after the message in hand; what it has not acknowledged goes back to the queue.

Delivery is at least once: after a crash labelcast sends up to 1,024 messages again, with the same
message_id, and the broker delivers again what a consumer did not acknowledge. So what is done is
remembered by its message_id, in the transaction of the work itself. RabbitMQ has no manifest of a
run: run labelcast with --marker for whole() to be called.
"""
import argparse
import json
import signal
import time
import uuid
from collections import Counter

import pika

from store import Store


def work(run_id, chat_id, name):
    """Your own work. What it writes to `store.db` is there once, also through crashes. What it does elsewhere
    can happen twice: hand `run_id` and `chat_id` on as a key by which the other side knows it."""
    store.db.execute("INSERT INTO worked VALUES (?, ?)", (run_id, chat_id))


def whole(run_id, chats):
    """Called once when all of a run is worked through; in a transaction, as `work` is."""
    store.db.execute("INSERT INTO whole VALUES (?, ?)", (run_id, chats))


def handle(properties, payload):
    body = json.loads(payload)
    if properties.content_type == "application/cloudevents+json":
        body = body["data"]
    run_id = body["run_id"]
    # A UUIDv7 begins with its time in milliseconds, here that of the snapshot.
    if time.time() - (uuid.UUID(run_id).int >> 80) / 1000 > args.max_age:
        counts["stale"] += 1
        return
    with store.transaction():
        store.has_run(run_id)
        if properties.type == "labelcast.chat":
            handle_chats(run_id, body, properties.message_id)
        elif (properties.headers or {}).get("event") == "run.completed":
            store.expect(run_id, body["chats"])
        # The marker comes last, but other consumers may still be at work on what came before it. More than the
        # marker says are done where the list has changed during the run: chats of both lists are on the queue.
        chats = store.expected(run_id)
        if chats is not None and store.count(run_id) >= chats and store.close_run(run_id):
            whole(run_id, chats)
    time.sleep(args.pause)


def handle_chats(run_id, body, message_id):
    # A packed message's id is that of its place in the list, and what is packed together may differ when a run
    # is resumed. Its chats are therefore known by the ids that they would have as messages of their own.
    packed = body.get("chat_ids")
    keys = [f"{run_id}:{chat_id}" for chat_id in packed] if packed else [message_id]
    ids = packed or [body["chat_id"]]
    names = body.get("names") or [body.get("name")] * len(ids)
    for key, chat_id, name in zip(keys, ids, names):
        is_new = store.remember(run_id, key)
        counts["processed" if is_new else "repeats"] += 1
        if is_new:
            work(run_id, chat_id, name)


parser = argparse.ArgumentParser()
parser.add_argument("--url", default="amqp://guest:guest@127.0.0.1:5672/%2f")
parser.add_argument("--queue", required=True)
parser.add_argument("--queue-type", default="quorum", help="as given to labelcast: quorum or classic")
parser.add_argument("--prefetch", type=int, default=100)
parser.add_argument("--db", default="consumer.db")
parser.add_argument("--max-age", type=float, default=86400, help="seconds; what is of an older run is dropped")
parser.add_argument("--pause", type=float, default=0, help="seconds after each message")
args = parser.parse_args()
counts, stopping = Counter(), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.append(True))
store = Store(args.db)
connection = pika.BlockingConnection(pika.URLParameters(args.url))
channel = connection.channel()
# As labelcast declares it, so that either may come first.
channel.queue_declare(args.queue, durable=True, arguments={"x-queue-type": args.queue_type})
channel.basic_qos(prefetch_count=args.prefetch)
for method, properties, payload in channel.consume(args.queue, inactivity_timeout=1):
    if stopping:
        break
    if method:
        handle(properties, payload)
        # Only now: what is not acknowledged is delivered again.
        channel.basic_ack(method.delivery_tag)
channel.cancel()
connection.close()
print(json.dumps(counts))
