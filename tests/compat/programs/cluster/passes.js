// Passes each connection on to a child, in one of these ways, which answers with its process id.
// Words: PORT one|both|twice|large
const { fork } = require('child_process');
const net = require('net');

const [port, way] = process.argv.slice(2);
if (port === 'child') {
  process.on('message', (message, socket) => {
    if (!socket) return;
    if (way === 'both') process.send('back', socket);
    else socket.end(`child ${process.pid}`);
  });
} else {
  const child = fork(__filename, ['child', way]);
  const large = 'x'.repeat(800 * 1024);
  child.on('message', (_, socket) => socket?.end(`back ${process.pid}`));
  net.createServer({ pauseOnConnect: true }, socket => {
    if (way === 'large') child.send(large);
    child.send(way === 'large' ? large : 'take', socket);
    if (way === 'twice') child.send('again', socket);
  }).listen(Number(port), '127.0.0.1');
  process.on('SIGTERM', () => {
    child.kill();
    process.exit(0);
  });
}
