"""A typical script with ijson and redis-py. Arguments: URL of the list, URL of Redis, stream."""

import sys
import urllib.request

import ijson
import redis

url, sink, stream = sys.argv[1:]
connection = redis.Redis.from_url(sink)
pipe = connection.pipeline(transaction=False)
with urllib.request.urlopen(url) as body:
    for count, (_, chat) in enumerate(ijson.kvitems(body, ""), 1):
        pipe.xadd(stream, {"chat_id": chat["id"], "label_id": "1", "run_id": "peer"})
        if count % 512 == 0:
            pipe.execute()
pipe.execute()
