// It writes its process id to a descriptor that it inherits, and serves. Words: PORT DESCRIPTOR
const fs = require('fs');
const http = require('http');

const [port, descriptor] = process.argv.slice(2).map(Number);
fs.writeSync(descriptor, `${process.pid}\n`);
http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
}).listen(port, '127.0.0.1');
