"""A typical script with ijson and pika. Arguments: URL of the list, URL of RabbitMQ, queue. Messages are persistent
and confirmed one after the other, as pika's blocking channel does it."""

import json
import sys
import urllib.request

import ijson
import pika

url, sink, queue = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(sink))
channel = connection.channel()
channel.confirm_delivery()
with urllib.request.urlopen(url) as body:
    for _, chat in ijson.kvitems(body, ""):
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=2, message_id="peer:" + chat["id"]
        )
        message = json.dumps({"chat_id": chat["id"], "label_id": "1", "run_id": "peer"})
        channel.basic_publish("", queue, message, properties, mandatory=True)
connection.close()
