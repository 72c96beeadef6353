// It says what makes no sense on the control channel, and serves.
const fs = require('fs');
const http = require('http');

const say = text => fs.writeSync(Number(process.env.MAITRED_CHANNEL), text);
http.createServer((_, response) => {
  say('ACCEPTED=1\nID=999\n');
  say('PONG=12345\n');
  say('{"cmd":"NODE_CLUSTER","ack":999}\n');
  say(Buffer.from([0, 255, 128]));
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
}).listen(Number(process.argv[2]), '127.0.0.1');
