// A server that ends, or loops for ever, when a request asks for it.
const http = require('http');

const doing = {
  '/exit': () => process.exit(42),
  '/loop': () => { for (;;); },
  '/throw': () => { throw new Error('thrown on purpose'); },
};

http.createServer((request, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid), () => setImmediate(doing[request.url] ?? (() => {})));
}).listen(Number(process.argv[2]), '127.0.0.1');
