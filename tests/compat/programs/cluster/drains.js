// It answers a line with that line. On SIGTERM it closes its server, and ends when its last connection has ended.
// Words: PORT [OTHER] - OTHER is a port where it keeps a connection of its own.
const net = require('net');

const [port, other] = process.argv.slice(2).map(Number);
const say = what => console.log(`${process.pid} ${what}`);
const server = net.createServer(client => client.pipe(client));
server.on('close', () => say('closed'));
process.on('SIGTERM', () => {
  say('asked');
  server.close();
});
if (other) net.connect(other, '127.0.0.1', () => say('connected')).on('end', () => say('left')).resume();
server.listen(port, '127.0.0.1');
