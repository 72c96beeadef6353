// Two servers on one port: the second is refused; when the first is closed, a third may have the port.
const http = require('http');

const port = Number(process.argv[2]);
const answer = (_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
};
const listen = done => {
  const server = http.createServer(answer);
  server.on('error', error => done(error.code)).listen(port, '127.0.0.1', () => done('listens', server));
};

listen((first, server) => {
  listen(second => {
    listen(third => {
      server.close(() => {
        listen(fourth => console.log(`${process.pid} ${first} ${second} ${third} ${fourth}`));
      });
    });
  });
});
