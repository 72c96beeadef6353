// An ordinary server: it answers with its process id.
const http = require('http');

const [port, host = '127.0.0.1'] = process.argv.slice(2);
http.createServer((_, response) => {
  response.setHeader('Connection', 'close');
  response.end(String(process.pid));
}).listen(Number(port), host);
