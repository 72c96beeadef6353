// Only the worker in slot 0 serves; the others hold no listener. Words: tcp|udp PORT
const dgram = require('dgram');
const net = require('net');

const [kind, port] = process.argv.slice(2);
const serves = () => console.log(`${process.pid} serves`);
if (process.env.MAITRED_SLOT === '0') {
  if (kind === 'udp') {
    const socket = dgram.createSocket('udp4', (said, from) => socket.send(said, from.port, from.address));
    socket.bind(Number(port), '127.0.0.1', serves);
  } else {
    net.createServer(client => client.pipe(client)).listen(Number(port), '127.0.0.1', serves);
  }
}
setInterval(() => {}, 1000);
