// A parent that listens, sends the server to a child, and closes its own at once.
const { fork } = require('child_process');
const http = require('http');
const net = require('net');

if (process.argv[2] === 'child') {
  process.once('message', (_, server) => {
    const answer = (_request, response) => response.end('as it was asked');
    http.createServer(answer).listen(server);
  });
} else {
  const child = fork(__filename, ['child']);
  const server = net.createServer();
  server.listen(Number(process.argv[2]), '127.0.0.1', () => {
    child.send('server', server);
    server.close();
  });
  process.on('SIGTERM', () => child.kill());
  child.on('exit', () => process.exit(0));
}
