// An ordinary Node server that tells in a header which worker it is, so that clients can count.
//   node server.js [PORT | PATH]     by default $PORT, and without that a port of the kernel's choice
const http = require('node:http');
const slot = process.env.MAITRED_SLOT ?? process.env.NODE_APP_INSTANCE ?? '0';
const server = http.createServer((request, response) => {
  response.setHeader('Maitred-Slot', slot);
  response.end(`slot ${slot}, process ${process.pid}\n`);
});
// Under pm2-runtime the first argument is its own.
const where = [process.argv[2], process.env.PORT, '0'].find((word) => /^\d+$|\//.test(word ?? ''));
server.listen(...(/^\d+$/.test(where) ? [Number(where), '127.0.0.1'] : [where]));
