// node services.js NAME PORT: WebSocket servers and their like, GraphQL and RPC over HTTP, and what proxies or mocks.
const http = require('http');
const [name, port] = [process.argv[2], Number(process.argv[3])];
const text = `slot ${process.env.MAITRED_SLOT}\n`;
const host = '127.0.0.1';

// The GraphQL schema { index }, of which GET / asks nothing but that it is served.
function schema() {
  const { GraphQLObjectType, GraphQLSchema, GraphQLString } = require('graphql');
  const index = { type: GraphQLString, resolve: () => text };
  return new GraphQLSchema({ query: new GraphQLObjectType({ name: 'Query', fields: { index } }) });
}

const services = {
  'socket.io'() {
    const { Server } = require('socket.io');
    const server = http.createServer();
    new Server(server).on('connection', (socket) => socket.emit('slot', text));
    server.listen(port, host);
  },

  'engine.io'() {
    require('engine.io').listen(port, host).on('connection', (socket) => socket.send(text));
  },

  ws() {
    const { WebSocketServer } = require('ws');
    new WebSocketServer({ port, host }).on('connection', (socket) => socket.send(text));
  },

  faye() {
    const server = http.createServer();
    new (require('faye').NodeAdapter)({ mount: '/', timeout: 45 }).attach(server);
    server.listen(port, host);
  },

  sockjs() {
    const server = http.createServer();
    const echo = require('sockjs').createServer({ log: () => {} });
    echo.on('connection', (connection) => connection.write(text));
    echo.installHandlers(server, { prefix: '/echo' });
    server.listen(port, host);
  },

  primus() {
    const server = http.createServer();
    new (require('primus'))(server, { transformer: 'websockets' });
    server.listen(port, host);
  },

  async apollo() {
    const { ApolloServer } = require('@apollo/server');
    const { startStandaloneServer } = require('@apollo/server/standalone');
    const server = new ApolloServer({ schema: schema(), csrfPrevention: false });
    await startStandaloneServer(server, { listen: { port, host } });
  },

  yoga() {
    const { createYoga } = require('graphql-yoga');
    http.createServer(createYoga({ schema: schema(), logging: false })).listen(port, host);
  },

  'graphql-http'() {
    const { createHandler } = require('graphql-http/lib/use/http');
    http.createServer(createHandler({ schema: schema() })).listen(port, host);
  },

  mercurius() {
    const app = require('fastify')();
    app.register(require('mercurius'), { schema: schema(), path: '/' });
    app.listen({ port, host });
  },

  trpc() {
    const { initTRPC } = require('@trpc/server');
    const { createHTTPServer } = require('@trpc/server/adapters/standalone');
    const { procedure, router } = initTRPC.create();
    createHTTPServer({ router: router({ index: procedure.query(() => text) }) }).listen(port, host);
  },

  jayson() {
    const jayson = require('jayson');
    new jayson.Server({ index: (params, done) => done(null, text) }).http().listen(port, host);
  },

  'http-proxy'() {
    const socketPath = `\0behind ${process.pid}`;
    http.createServer((request, response) => response.end(text)).listen(socketPath);
    require('http-proxy').createProxyServer({ target: { socketPath } }).listen(port, host);
  },

  gun() {
    const Gun = require('gun');
    const web = http.createServer(Gun.serve(`${__dirname}/public`)).listen(port, host);
    new Gun({ web, rfs: false, radisk: false, multicast: false, axe: false });
  },

  'tiny-lr'() {
    require('tiny-lr')().listen(port, host);
  },

  dynalite() {
    require('dynalite')().listen(port, host);
  },

  kinesalite() {
    require('kinesalite')().listen(port, host);
  },

  s3rver() {
    new (require('s3rver'))({ port, address: host, silent: true, directory: process.argv[4] }).run();
  },

  'oidc-provider'() {
    const { Provider } = require('oidc-provider');
    new Provider(`http://localhost:${port}`).listen(port, host);
  },

  proxy() {
    require('proxy').createProxy(http.createServer()).listen(port, host);
  },

  'cors-anywhere'() {
    require('cors-anywhere').createServer().listen(port, host);
  },

  socketcluster() {
    const server = http.createServer();
    require('socketcluster-server').attach(server, { path: '/' });
    server.listen(port, host);
  },

  hocuspocus() {
    const { Server } = require('@hocuspocus/server');
    new Server({ port, address: host, quiet: true, stopOnSignals: false }).listen();
  },

  mcp() {
    const { McpServer } = require('@modelcontextprotocol/sdk/server/mcp.js');
    const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
    http.createServer(async (request, response) => {
      const server = new McpServer({ name: 'slot', version: '1.0.0' });
      server.registerTool('slot', {}, () => ({ content: [{ type: 'text', text }] }));
      const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
      await server.connect(transport);
      await transport.handleRequest(request, response);
    }).listen(port, host);
  },
};

services[name]();
