// SIGUSR2 closes the server, or makes it listen again; it says what came of it.
const http = require('http');

const [port, host = '127.0.0.1'] = process.argv.slice(2);
const server = http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
});
const say = what => console.log(`${process.pid} ${what}`);
const listen = () => server.listen(Number(port), host);

server.on('listening', () => say('listens')).on('close', () => say('closed')).on('error', error => say(error.code));
process.on('SIGUSR2', () => server.listening ? server.close() : listen());
// Without a server the process would end.
setInterval(() => {}, 1000);
listen();
