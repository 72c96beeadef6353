// A server with an inner service on port 0, for its own use: opened at start, or for each request.
const http = require('http');

const inner = () => new Promise(done => {
  const service = http.createServer((_, answer) => answer.end(String(process.pid)));
  service.listen(0, '127.0.0.1', () => done(service));
});

const ask = service => new Promise((done, failed) => {
  const asked = http.get({ port: service.address().port, host: '127.0.0.1', agent: false }, answer => {
    let text = '';
    answer.on('data', piece => text += piece).on('end', () => done(text));
  });
  asked.on('error', failed);
});

(async () => {
  const [port, when] = process.argv.slice(2);
  const always = when === 'start' ? await inner() : undefined;
  http.createServer(async (_, answer) => {
    const service = always ?? await inner();
    const said = await ask(service).catch(error => error.code);
    if (!always) service.close();
    answer.setHeader('Connection', 'close');
    answer.end(`${process.pid} ${said}`);
  }).listen(Number(port), '127.0.0.1');
})();
