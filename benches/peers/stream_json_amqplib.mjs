// A typical script with stream-json and amqplib. Arguments: URL of the list, URL of RabbitMQ, queue.
// Messages are persistent and confirmed, with at most 1,024 in flight.
import http from 'node:http';
import {createRequire} from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const amqplib = require('amqplib');
const {parser} = require('stream-json');
const {streamObject} = require('stream-json/streamers/StreamObject');

const [url, sink, queue] = process.argv.slice(2);
const connection = await amqplib.connect(sink);
const channel = await connection.createConfirmChannel();
http.get(url, async response => {
  let unconfirmed = 0;
  let wake = () => {};
  for await (const {value} of response.pipe(parser()).pipe(streamObject())) {
    const message = JSON.stringify({chat_id: value.id, label_id: '1', run_id: 'peer'});
    const options = {
      persistent: true,
      mandatory: true,
      contentType: 'application/json',
      messageId: `peer:${value.id}`,
    };
    unconfirmed += 1;
    channel.sendToQueue(queue, Buffer.from(message), options, error => {
      if (error) throw error;
      unconfirmed -= 1;
      wake();
    });
    while (unconfirmed >= 1024) {
      await new Promise(resolve => {
        wake = resolve;
      });
    }
  }
  await channel.waitForConfirms();
  await connection.close();
});
