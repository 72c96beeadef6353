// The same as debugged.py, with Node's child processes.
const http = require('http');
const { fork } = require('child_process');

if (process.argv[2] === 'child') {
  const service = http.createServer((_, answer) => answer.end(`child on ${service.address().port}`));
  service.keepAliveTimeout = 1;
  service.listen(0, '127.0.0.1', () => process.send(service.address().port));
  process.on('disconnect', () => process.exit());
} else {
  const port = () => new Promise(done => fork(__filename, ['child']).once('message', done));
  Promise.all([port(), port(), port()]).then(ports => {
    http.createServer((_, answer) => {
      answer.setHeader('Connection', 'close');
      answer.end(ports.join(' '));
    }).listen(Number(process.argv[2]), '127.0.0.1');
  });
}
