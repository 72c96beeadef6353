// One server is closed before it listens; another takes over the socket of a third. Words: PORT
const http = require('http');

const port = Number(process.argv[2]);
const answer = (_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
};
const early = http.createServer(answer).listen(port, '127.0.0.1');
early.close(() => {
  const bound = http.createServer();
  bound.listen(port, '127.0.0.1', () => {
    http.createServer(answer).listen(bound, () => console.log(`${process.pid} listens`));
  });
});
