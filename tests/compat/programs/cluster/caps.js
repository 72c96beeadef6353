// A server that keeps so many connections, and greets them; Node closes the others. Words: PORT CAP,CAP,... - one cap
// for each slot.
const net = require('net');

const [port, caps] = process.argv.slice(2);
const slot = Number(process.env.MAITRED_SLOT);
const server = net.createServer(client => client.write('kept'));
server.maxConnections = Number(caps.split(',')[slot]);
server.on('drop', () => console.log(`slot ${slot} dropped`));
server.listen(Number(port), '127.0.0.1');
