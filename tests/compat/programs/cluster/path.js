// HTTP over a Unix socket: it answers with what it knows of the client's address. Words: PATH [all] - with `all`,
// everybody may use the socket.
const http = require('http');

const [path, who] = process.argv.slice(2);
const server = http.createServer({ requireHostHeader: false }, (request, response) => {
  const { remoteAddress, remotePort, localAddress, localPort } = request.socket;
  response.setHeader('Connection', 'close');
  response.end(`${process.pid} ${remoteAddress} ${remotePort} ${localAddress} ${localPort}`);
});
server.on('error', error => {
  console.log(`${process.pid} ${error.code}`);
  process.exit(0);
});
server.listen({ path, readableAll: who === 'all', writableAll: who === 'all' });
process.on('SIGTERM', () => server.close());
