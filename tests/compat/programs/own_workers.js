// A server with workers of its own, which accept in turns (Node's cluster).
//   node own_workers.js PORT
const cluster = require('node:cluster');
const http = require('node:http');
const port = Number(process.argv[2]);
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i += 1) cluster.fork();
} else {
  http.createServer((request, response) => response.end(`process ${process.pid}`)).listen(port, '127.0.0.1');
}
