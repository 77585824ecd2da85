"""A typical script with ijson and aio-pika. Arguments: URL of the list, URL of RabbitMQ, queue. Messages are
persistent and confirmed, with 512 in flight, as in labelcast."""

import asyncio
import json
import sys
import urllib.request

import aio_pika
import ijson

AT_ONCE = 512


async def main(url, sink, queue):
    connection = await aio_pika.connect(sink)
    channel = await connection.channel(publisher_confirms=True)
    room = asyncio.Semaphore(AT_ONCE)

    async def publish(chat_id):
        body = json.dumps({"chat_id": chat_id, "label_id": "1", "run_id": "peer"}).encode()
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=2, message_id="peer:" + chat_id
        )
        try:
            await channel.default_exchange.publish(message, queue, mandatory=True)
        finally:
            room.release()

    async with asyncio.TaskGroup() as tasks:
        with urllib.request.urlopen(url) as body:
            for _, chat in ijson.kvitems(body, ""):
                await room.acquire()
                tasks.create_task(publish(chat["id"]))
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
