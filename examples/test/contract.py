"""Compares published messages with the schemas in config/schemas.

    contract.py redis URL STREAM RUN_ID FORMAT PACKED NAMES CHATS [PARTITIONS]
    contract.py rabbitmq URL QUEUE RUN_ID FORMAT PACKED NAMES CHATS
    contract.py file PATH - RUN_ID FORMAT PACKED NAMES CHATS
    contract.py removed redis|rabbitmq|file URL|PATH QUEUE RUN_ID FORMAT CHATS
    contract.py change redis|rabbitmq URL QUEUE FORMAT EVENT CHATS
    contract.py contact redis|rabbitmq URL QUEUE FORMAT REPORT
    contract.py contact-failed redis|rabbitmq URL QUEUE FORMAT REPORT
    contract.py manifest URL STREAM RUN_ID STATUS
    contract.py report < REPORTS
    contract.py enrich-report < REPORTS

PACKED is the number of ids per message. REPORT is the file with the report of `labelcast enrich`. Exits with 1 at the first message that does not match its schema, and if there
are not exactly CHATS different chats, each once, between the two markers, or as many as the report says.
"""
import functools
import json
import pathlib
import re
import sys

import jsonschema
import referencing

# The ends of message ids of `labelcast enrich`.
ENDINGS = {"contact": "contact", "contact-failed": "failed"}
SCHEMAS = pathlib.Path(__file__).parents[2] / "config" / "schemas"
REGISTRY = referencing.Registry(
    retrieve=lambda uri: referencing.Resource.from_contents(json.loads((SCHEMAS / uri).read_text())))


@functools.cache
def validator(name):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(
        schema, registry=REGISTRY, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)


def valid(name, value):
    error = jsonschema.exceptions.best_match(validator(name).iter_errors(value))
    if error:
        sys.exit(f"does not match {name}.json at {error.json_path}: {error.message}\n{json.dumps(value)[:500]}")
    return value


def part(name, value):
    """Compares a value with one of the common definitions."""
    schema = {"$ref": f"definitions.json#/definitions/{name}"}
    jsonschema.Draft7Validator(schema, registry=REGISTRY).validate(value)
    return value


def on_redis(url, stream, partitions):
    import redis

    server = redis.Redis.from_url(url, decode_responses=True, protocol=2)
    names = [f"{stream}:{{{number}}}" for number in range(partitions)] or [stream]
    return [[fields for _, fields in server.xrange(name)] for name in names]


def on_rabbitmq(url, queue):
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    messages = []
    try:
        while (got := channel.basic_get(queue, auto_ack=True))[0]:
            messages.append((got[0], {key: value for key, value in vars(got[1]).items() if value is not None}, got[2]))
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:  # a queue that nothing was published to does not exist
            raise
    connection.close()
    return messages


def event_data(body, is_event, schema):
    valid(schema + ("-event" if is_event else ""), body)
    return body["data"] if is_event else body


def from_redis(fields, form, schema):
    if form == "fields":
        data = dict(valid({"marker-started": "fields-started", "marker-completed": "fields-completed"}.get(
            schema, f"fields-{schema}"), fields))
        for key in ("chat_ids", "names"):
            if key in data:
                data[key] = part(key, json.loads(data[key]))
        return data
    valid("entry-data", fields)
    data = event_data(json.loads(fields["data"]), form == "cloudevents", schema)
    assert fields.get("event") == data.get("event"), "a message with an event has it beside its data"
    return data


def from_rabbitmq(queue, method, properties, body, form, schema):
    kind = schema if schema.startswith("contact") else schema.split("-")[0]
    known = ("marker", "removed", "change", "contact", "contact-failed")
    valid(f"rabbitmq-{kind if kind in known else 'chat'}", properties)
    assert (method.exchange, method.routing_key) == ("", queue)
    wanted = "application/cloudevents+json" if form == "cloudevents" else "application/json"
    assert properties["content_type"] == wanted, properties["content_type"]
    data = event_data(json.loads(body), form == "cloudevents", schema)
    if schema == "removed":
        assert properties["message_id"] == f"{data['run_id']}:{data['chat_id']}:deleted"
    elif schema == "change":
        assert properties["message_id"] == data["event_id"]
    elif schema in ENDINGS:
        if data["chat_id"] is not None and ("run_id" in data or "event_id" in data):
            origin = data.get("event_id") or data["run_id"]
            assert properties["message_id"] == f"{origin}:{data['chat_id']}:{ENDINGS[schema]}"
    elif "event" in data:
        assert properties["headers"]["event"] == data["event"]
        assert properties["message_id"] == f"{data['run_id']}:{data['event']}"
    elif "chat_id" in data:
        assert properties["message_id"] == f"{data['run_id']}:{data['chat_id']}"
    return data


def published(kind, where, queue, run_id, form, packed, names, chats, partitions="0"):
    packed, chats, partitions = int(packed), int(chats), int(partitions)
    has_markers = kind != "file"
    if kind == "redis":
        lists, decode = on_redis(where, queue, partitions), from_redis
    elif kind == "rabbitmq":
        lists = [on_rabbitmq(where, queue)]
        decode = lambda message, form, schema: from_rabbitmq(queue, *message, form, schema)
    else:
        lists = [pathlib.Path(where).read_text().splitlines()]
        decode = lambda line, form, schema: event_data(json.loads(line), form == "cloudevents", schema)
    ids, sizes = [], []
    for messages in lists:
        for number, message in enumerate(messages):
            schema = "chats" if packed > 1 else "chat"
            if has_markers:
                schema = {0: "marker-started", len(messages) - 1: "marker-completed"}.get(number, schema)
            data = decode(message, form, schema)
            assert data["run_id"] == run_id and data["label_id"] == "1"
            if schema == "marker-completed":
                assert int(data["chats"]) == chats, data["chats"]
            elif not schema.startswith("marker"):
                these = data.get("chat_ids") or [data["chat_id"]]
                assert len(these) <= packed
                sizes.append(len(these))
                ids += these
                found = data.get("names") or [data.get("name")] * len(these)
                assert len(found) == len(these) and all((name is None) == (names == "no") for name in found)
    assert len(ids) == len(set(ids)) == chats, f"{len(ids)} chats, {len(set(ids))} of them different, instead of {chats}"
    assert packed == 1 or max(sizes) > 1, "no message has several chats"
    print(f"{kind} {form} {packed} ids per message, names {names}: {len(ids)} chats in {len(sizes)} messages")


def removed(kind, where, queue, run_id, form, chats):
    if kind == "redis":
        found = [from_redis(fields, form, "removed") for fields in on_redis(where, queue, 0)[0]]
    elif kind == "rabbitmq":
        found = [from_rabbitmq(queue, *message, form, "removed") for message in on_rabbitmq(where, queue)]
    else:
        lines = pathlib.Path(where).read_text().splitlines()
        found = [event_data(json.loads(line), form == "cloudevents", "removed") for line in lines]
    assert all((data["run_id"], data["label_id"]) == (run_id, "1") for data in found)
    ids = {data["chat_id"] for data in found}
    assert len(ids) == len(found) == int(chats), f"{len(ids)} chats in {len(found)} messages"
    print(f"{kind} {form}: {len(ids)} chats that have left")


def changed(kind, where, queue, form, event, chats):
    if kind == "redis":
        found = [from_redis(fields, form, "change") for fields in on_redis(where, queue, 0)[0]]
    else:
        found = [from_rabbitmq(queue, *message, form, "change") for message in on_rabbitmq(where, queue)]
    assert all((data["event"], data["label_id"]) == (event, "1") for data in found), found
    for key in ("chat_id", "event_id", "run_id"):
        assert len({data[key] for data in found}) == len(found) == int(chats), f"{key} of {len(found)} messages"
    print(f"{kind} {form}: {len(found)} {event}")


def enriched(schema, kind, where, queue, form, report):
    totals = json.loads(pathlib.Path(report).read_text())["totals"]
    if kind == "redis":
        found = [from_redis(fields, form, schema) for fields in on_redis(where, queue, 0)[0]]
    else:
        found = [from_rabbitmq(queue, *message, form, schema) for message in on_rabbitmq(where, queue)]
    if schema == "contact":
        # Fields of Redis are texts, and null is left out.
        results = [{"true": True, "false": False}.get(data.get("found"), data.get("found")) for data in found]
        counts = {"found": results.count(True), "missing": results.count(False), "not_asked": results.count(None)}
    else:
        with_id = sum(data.get("chat_id") is not None for data in found)
        counts = {"failed": with_id, "unusable": len(found) - with_id}
    wanted = {key: totals[key] for key in counts}
    assert counts == wanted, f"{counts} instead of {wanted}"
    ids = [(data.get("run_id"), data.get("event_id"), data["chat_id"]) for data in found if data.get("chat_id")]
    assert len(ids) == len(set(ids)), f"{len(ids)} messages about {len(set(ids))} chats"
    print(f"{kind} {form} {schema}: {counts}")


def manifest(url, stream, run_id, status):
    import redis

    tag = (re.search(r"\{([^}]+)\}", stream) or [None, stream])[1]
    server = redis.Redis.from_url(url, decode_responses=True, protocol=2)
    found = valid("manifest", server.hgetall(f"labelcast:run:{{{tag}}}:{run_id}"))
    assert (found["status"], found["queue"], found["run_id"]) == (status, stream, run_id), found
    print(f"manifest: {status}")


def reports():
    for line in sys.stdin:
        found = valid("report", json.loads(line))
        for label in found["labels"]:
            total = sum(label[key] for key in ("published", "resumed", "suppressed", "known", "invalid"))
            assert label["status"] != "complete" or "dry_run" in found or "list_changed" in label or total == label["read"]
        print(f"report: {found['status']}, exit code {found['exit_code']}")


def enrich_reports():
    for line in sys.stdin:
        found = valid("enrich-report", json.loads(line))
        print(f"report of enrich: {found['status']}, exit code {found['exit_code']}")


what, *rest = sys.argv[1:]
if what == "report":
    reports()
elif what == "manifest":
    manifest(*rest)
elif what == "removed":
    removed(*rest)
elif what == "change":
    changed(*rest)
elif what == "enrich-report":
    enrich_reports()
elif what in ENDINGS:
    enriched(what, *rest)
else:
    published(what, *rest)
