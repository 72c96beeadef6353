// node own.js NAME PORT: Node's own servers, and ways to run them in more than one thread or process.
const cluster = require('cluster');
const http = require('http');
const workers = require('worker_threads');
const [name, port] = [process.argv[2], Number(process.argv[3])];
const text = `slot ${process.env.MAITRED_SLOT}\n`;
const host = '127.0.0.1';

const serve = () => http.createServer((request, response) => response.end(text)).listen(port, host);

const servers = {
  http: serve,

  http2() {
    require('http2').createServer((request, response) => response.end(text)).listen(port, host);
  },

  'http after a while'() {
    setTimeout(serve, 300);
  },

  cluster() {
    if (!cluster.isPrimary) return serve();
    cluster.fork();
    cluster.fork();
  },

  'cluster without a scheduler'() {
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    servers.cluster();
  },

  worker_threads() {
    if (!workers.isMainThread) return serve();
    new workers.Worker(__filename, { argv: process.argv.slice(2) });
  },

  child_process() {
    require('child_process').fork(__filename, ['http', port]);
  },

  throng() {
    require('throng')({ count: 2, worker: serve });
  },
};

servers[name]();
