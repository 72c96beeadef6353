// An ordinary Node server for tests about the lives of workers: it ends at once on TERM.
//   node pages.js PORT DIR
// GET /wait is answered as soon as there is a file DIR/go.
const http = require('node:http');
const fs = require('node:fs');
const body = `slot ${process.env.MAITRED_SLOT} generation ${process.env.MAITRED_GENERATION} process ${process.pid}`;
const server = http.createServer((request, response) => {
  if (request.url !== '/wait') return response.end(body);
  const timer = setInterval(() => {
    if (!fs.existsSync(`${process.argv[3]}/go`)) return;
    clearInterval(timer);
    response.end(body);
  }, 5);
});
server.listen(Number(process.argv[2]), '127.0.0.1');
