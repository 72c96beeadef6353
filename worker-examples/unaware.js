// An ordinary Node server. It knows nothing of maitred.
//   maitred -w 4 -- node worker-examples/unaware.js 8080
const http = require('node:http');
const server = http.createServer((request, response) => {
  response.end(`slot ${process.env.MAITRED_SLOT ?? '-'}, process ${process.pid}\n`);
});
server.listen(Number(process.argv[2] ?? 8080), '127.0.0.1');
