// Answers each datagram with its process id. Words: PORT LIMIT - after so many it closes its socket.
const dgram = require('dgram');

const [port, limit] = process.argv.slice(2).map(Number);
const socket = dgram.createSocket('udp4');
let received = 0;
socket.on('message', (_, from) => {
  received += 1;
  socket.send(String(process.pid), from.port, from.address, () => {
    if (received === limit) socket.close(() => console.log(`${process.pid} closed`));
  });
});
socket.bind(port, '127.0.0.1');
setInterval(() => {}, 1000);
