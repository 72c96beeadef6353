// Connects so often to such a server, each time with the session that it got first, and says how often the server knew
// that. Words: PORT COUNT
const tls = require('tls');

const [port, count] = process.argv.slice(2).map(Number);
let session;
let known = 0;
const connect = left => {
  if (left === 0) return console.log(known);
  const client = tls.connect({
    port,
    host: '127.0.0.1',
    session,
    ciphers: 'aNULL:@SECLEVEL=0',
    maxVersion: 'TLSv1.2',
    rejectUnauthorized: false,
    checkServerIdentity: () => {},
  });
  client.once('session', given => session ??= given).on('close', () => connect(left - 1)).resume();
  client.on('secureConnect', () => known += client.isSessionReused() ? 1 : 0);
};
connect(count);
