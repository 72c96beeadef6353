// What happens to two sockets of one program on one UDP port, for several ports in a row; it says so in one line, and
// answers on the last of them. Words: PORT
const dgram = require('dgram');

const first = Number(process.argv[2]);
const open = (port, { address = '127.0.0.1', type = 'udp4', ...options }) => new Promise(done => {
  const socket = dgram.createSocket({ type, ...options });
  socket.on('error', error => done(error.code));
  socket.bind(port, address, () => done('bound'));
});
const both = async (port, one, other = one) => `${await open(port, one)}+${await open(port, other)}`;
const closed = (socket, port) => new Promise(done => {
  socket.on('listening', () => socket.close(done));
  socket.bind(port, '127.0.0.1');
});

(async () => {
  const results = [
    await both(first, { type: 'udp6', ipv6Only: true, address: '::' }, { address: '0.0.0.0' }),
    await both(first + 1, {}),
    await both(first + 2, { reuseAddr: true }),
    await both(0, {}),
  ];
  const last = first + 3;
  // Closed before it is bound, and closed as soon as it is.
  const early = dgram.createSocket('udp4');
  early.bind(last, '127.0.0.1').close();
  await closed(dgram.createSocket('udp4'), last);
  const socket = dgram.createSocket('udp4');
  socket.on('message', (_, from) => socket.send(String(process.pid), from.port, from.address));
  socket.bind(last, '127.0.0.1', () => console.log(`${process.pid} says ${results.join(' ')}, and serves`));
})();
