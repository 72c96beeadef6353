// Beside its server it listens on port 0, closes that, and listens on port 0 twice more; it tells the last two ports.
const http = require('http');

const listen = port => new Promise(done => {
  const server = http.createServer((_, response) => {
    response.setHeader('Connection', 'close');
    response.end(String(process.pid));
  });
  server.listen(port, '127.0.0.1', () => done(server));
});

(async () => {
  await listen(Number(process.argv[2]));
  const first = await listen(0);
  await new Promise(done => first.close(done));
  const [second, third] = await Promise.all([listen(0), listen(0)]);
  console.log(`${process.pid} ports ${second.address().port} ${third.address().port}`);
})();
