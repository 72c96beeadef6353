// It says which signal asked it to end, closes its server, and ends when nothing is left to do.
const http = require('http');

const server = http.createServer((_, response) => response.end(String(process.pid)));
server.listen(Number(process.argv[2]), '127.0.0.1');
for (const name of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGUSR2']) {
  process.on(name, () => {
    console.log(`${process.pid} got ${name}`);
    server.close(() => console.log(`${process.pid} closed`));
  });
}
