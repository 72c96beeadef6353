// A server that first tries whether its port is free, by listening there, as many tools do (get-port, Vite).
//   node twice.js PORT
// On USR2 it closes for good and lives on.
const http = require('node:http');
const port = Number(process.argv[2]);
const first = http.createServer().listen(port, '127.0.0.1', () => first.close(() => {
  const server = http.createServer((request, response) => response.end(`process ${process.pid}`));
  server.listen(port, '127.0.0.1');
  process.on('SIGUSR2', () => server.close());
}));
setInterval(() => {}, 60_000);
