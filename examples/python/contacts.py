"""Processes the contacts that `labelcast enrich` publishes, from Redis or RabbitMQ.

    pip install -r requirements.txt
    python contacts.py --url redis://127.0.0.1:6379 --queue vip-contacts --db contacts.db
    python contacts.py --url amqp://guest:guest@127.0.0.1:5672/%2f --queue vip-contacts --db contacts.db

Start as many consumers as you like, on Redis each with its own --consumer. If a consumer loses its connection, it
exits with an error and must be restarted. On SIGTERM it exits after the current message and prints its counts.

A record can be delivered twice. So finished work is recorded by run (or event) and chat, in the same transaction as
the work itself.
"""
import argparse
import json
import signal
import socket
import time
from collections import Counter

from store import Store


def work(origin, contact):
    """Your own work. What it writes to `store.db` is written exactly once, even after crashes. Work elsewhere can
    happen twice: pass `origin` and the chat id as an idempotency key."""
    store.db.execute("INSERT INTO worked VALUES (?, ?)", (origin, contact["chat_id"]))


def contact_of(fields):
    """Returns the record in an entry of a stream, in any --format. Unknown members are ignored."""
    if "data" in fields:
        return contact_of_json(fields["data"])
    # Redis has no booleans and no null.
    return {key: value == "true" if key in ("found", "is_business") else value for key, value in fields.items()}


def contact_of_json(text):
    body = json.loads(text)
    return body["data"] if "specversion" in body else body


def handle(contact):
    # Not found, or (null or absent) not asked for, because groups, newsletters and broadcasts have no contact.
    if not contact.get("found"):
        counts["skipped"] += 1
        return
    # Empty for a chat that named neither run nor event.
    origin = contact.get("event_id") or contact.get("run_id") or ""
    with store.transaction():
        is_new = store.remember(origin, contact["chat_id"])
        counts["processed" if is_new else "repeats"] += 1
        if is_new:
            work(origin, contact)


def consume_redis():
    import redis

    server = redis.Redis.from_url(args.url, decode_responses=True, protocol=2)
    try:  # Start at 0: a group that starts at $ misses existing entries.
        server.xgroup_create(args.queue, args.group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise

    def handle_entries(entries):
        for entry_id, fields in entries:
            if fields and not stopping:  # Redis 6.2 also returns deleted entries, without fields
                handle(contact_of(fields))
                # Acknowledge only now, so that unfinished entries are delivered again.
                server.xack(args.queue, args.group, entry_id)

    next_claim = 0
    while not stopping:
        if time.monotonic() >= next_claim:
            # Take over entries that a consumer has read but not acknowledged within --claim-idle.
            cursor = None
            while cursor != "0-0" and not stopping:
                cursor, entries, *_ = server.xautoclaim(
                    args.queue, args.group, args.consumer, int(args.claim_idle * 1000), cursor or "0-0", count=100)
                handle_entries(entries)
            next_claim = time.monotonic() + args.claim_idle / 2
        for _, entries in server.xreadgroup(args.group, args.consumer, {args.queue: ">"}, count=100, block=1000):
            handle_entries(entries)


def consume_rabbitmq():
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(args.url))
    channel = connection.channel()
    # The same declaration as in labelcast, so that either program can start first.
    channel.queue_declare(args.queue, durable=True, arguments={"x-queue-type": args.queue_type})
    channel.basic_qos(prefetch_count=100)
    for method, _, payload in channel.consume(args.queue, inactivity_timeout=1):
        if stopping:
            break
        if method:
            handle(contact_of_json(payload))
            # Acknowledge only now, so that unfinished messages are delivered again.
            channel.basic_ack(method.delivery_tag)
    channel.cancel()
    connection.close()


parser = argparse.ArgumentParser()
parser.add_argument("--url", default="redis://127.0.0.1:6379")
parser.add_argument("--queue", required=True)
parser.add_argument("--group", default="example", help="Redis")
parser.add_argument("--consumer", default=socket.gethostname(), help="Redis")
parser.add_argument("--claim-idle", type=float, default=60, help="Redis; seconds; longer than 100 messages take")
parser.add_argument("--queue-type", default="quorum", help="RabbitMQ; as for labelcast: quorum or classic")
parser.add_argument("--db", default="contacts.db")
args = parser.parse_args()
counts, stopping = Counter(), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.append(True))
store = Store(args.db)
if args.url.startswith("amqp"):
    consume_rabbitmq()
else:
    consume_redis()
print(json.dumps(counts))
