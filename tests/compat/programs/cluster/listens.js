// Listens as its words say: each is what `listen` takes, in JSON. It tells where, or why not, and answers with its
// process id.
const http = require('http');

for (const where of process.argv.slice(2).map(word => JSON.parse(word))) {
  const server = http.createServer((_, response) => {
    response.setHeader('Connection', 'close');
    response.end(String(process.pid));
  });
  server.on('error', error => console.log(`${process.pid} ${error.code}`));
  server.listen(where, () => console.log(`${process.pid} at ${server.address().address} ${server.address().port}`));
}
// Without a server the process would end.
setInterval(() => {}, 1000);
