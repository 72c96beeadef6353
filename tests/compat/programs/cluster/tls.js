// TLS without certificates. Words: PORT [TICKET-KEYS], those in hex.
const tls = require('tls');

const [port, keys] = process.argv.slice(2);
tls.createServer({
  ciphers: 'aNULL:@SECLEVEL=0',
  maxVersion: 'TLSv1.2',
  ticketKeys: keys && Buffer.from(keys, 'hex'),
}, client => client.end('served')).listen(Number(port), '127.0.0.1');
