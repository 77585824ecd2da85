"""Processes the chats that labelcast publishes to a RabbitMQ queue.

    pip install -r requirements.txt
    python rabbitmq_consumer.py --url amqp://guest:guest@127.0.0.1:5672/%2f --queue labelcast:4 --db consumer.db

Start as many consumers as you like. If a consumer loses its connection, it exits with an error and must be
restarted. On SIGTERM it exits after the current message, and its unacknowledged messages return to the queue.

Delivery is at least once: after a crash labelcast sends up to 1,024 messages again, with the same message_id,
and the broker redelivers unacknowledged messages. So finished work is recorded by message_id, in the same
transaction as the work itself. RabbitMQ has no manifest of a run: whole() is only called if labelcast runs
with --marker.
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
    """Your own work. What it writes to `store.db` is written exactly once, even after crashes. Work elsewhere can
    happen twice: pass `run_id` and `chat_id` as an idempotency key."""
    store.db.execute("INSERT INTO worked VALUES (?, ?)", (run_id, chat_id))


def whole(run_id, chats):
    """Called once after a whole run was processed, in a transaction like `work`."""
    store.db.execute("INSERT INTO whole VALUES (?, ?)", (run_id, chats))


def handle(properties, payload):
    body = json.loads(payload)
    if properties.content_type == "application/cloudevents+json":
        body = body["data"]
    run_id = body["run_id"]
    # A UUIDv7 starts with a time in milliseconds, here that of the snapshot.
    if time.time() - (uuid.UUID(run_id).int >> 80) / 1000 > args.max_age:
        counts["stale"] += 1
        return
    with store.transaction():
        if "event_id" not in body:  # a change that a webhook reported is no part of a run
            store.has_run(run_id)
        if properties.type == "labelcast.chat" or body.get("event") == "label.chat.added":
            handle_chats(run_id, body, properties.message_id)
        elif (properties.headers or {}).get("event") == "run.completed":
            store.expect(run_id, body["chats"])
        # The marker comes last, but other consumers may still be processing earlier messages. If the list
        # changed during the run, more chats than the marker says are processed, because chats of both lists are
        # on the queue.
        chats = store.expected(run_id)
        if chats is not None and store.count(run_id) >= chats and store.close_run(run_id):
            whole(run_id, chats)
    time.sleep(args.pause)


def handle_chats(run_id, body, message_id):
    # A packed message's id depends on its position in the list, and its chats may differ after a resume. So its
    # chats are identified by the ids that they would have as single messages.
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
parser.add_argument("--queue-type", default="quorum", help="as for labelcast: quorum or classic")
parser.add_argument("--prefetch", type=int, default=100)
parser.add_argument("--db", default="consumer.db")
parser.add_argument("--max-age", type=float, default=86400, help="seconds; messages of older runs are dropped")
parser.add_argument("--pause", type=float, default=0, help="seconds after each message")
args = parser.parse_args()
counts, stopping = Counter(), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.append(True))
store = Store(args.db)
connection = pika.BlockingConnection(pika.URLParameters(args.url))
channel = connection.channel()
# The same declaration as in labelcast, so that either program can start first.
channel.queue_declare(args.queue, durable=True, arguments={"x-queue-type": args.queue_type})
channel.basic_qos(prefetch_count=args.prefetch)
for method, properties, payload in channel.consume(args.queue, inactivity_timeout=1):
    if stopping:
        break
    if method:
        handle(properties, payload)
        # Acknowledge only now, so that unfinished messages are delivered again.
        channel.basic_ack(method.delivery_tag)
channel.cancel()
connection.close()
print(json.dumps(counts))
