// A typical script with stream-json and ioredis. Arguments: URL of the list, URL of Redis, stream.
import http from 'node:http';
import {createRequire} from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const Redis = require('ioredis');
const {parser} = require('stream-json');
const {streamObject} = require('stream-json/streamers/StreamObject');

const [url, sink, stream] = process.argv.slice(2);
const redis = new Redis(sink);
http.get(url, async response => {
  let pipeline = redis.pipeline();
  for await (const {value} of response.pipe(parser()).pipe(streamObject())) {
    pipeline.xadd(stream, '*', 'chat_id', value.id, 'label_id', '1', 'run_id', 'peer');
    if (pipeline.length === 512) {
      await pipeline.exec();
      pipeline = redis.pipeline();
    }
  }
  await pipeline.exec();
  redis.disconnect();
});
