// It serves on a listening socket that it inherits as descriptor 3.
const http = require('http');

http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
}).listen({ fd: 3 });
