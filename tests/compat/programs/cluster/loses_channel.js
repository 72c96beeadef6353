// It closes the descriptor by which it could speak to maitred, as programs do that close what they do not know, and
// serves. Words: PORT before|after - before or after it listens
const fs = require('fs');
const http = require('http');

const [port, when] = process.argv.slice(2);
const close = () => fs.closeSync(Number(process.env.MAITRED_CHANNEL));
if (when === 'before') close();
http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
}).listen(Number(port), '127.0.0.1', () => {
  if (when === 'after') close();
  console.log(`${process.pid} listens`);
});
