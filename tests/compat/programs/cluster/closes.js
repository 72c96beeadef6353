// On SIGUSR2 it closes its server, and has nothing left to do.
const http = require('http');

const server = http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGUSR2', () => server.close());
