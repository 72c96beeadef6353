// node frameworks.js NAME PORT: the web framework NAME, listening by itself.
const [name, port] = [process.argv[2], Number(process.argv[3])];
const text = `slot ${process.env.MAITRED_SLOT}\n`;
const host = '127.0.0.1';

const frameworks = {
  koa() {
    const Koa = require('koa');
    new Koa().use((context) => { context.body = text; }).listen(port, host);
  },

  fastify() {
    const app = require('fastify')();
    app.get('/', async () => text);
    app.listen({ port, host });
  },

  hapi() {
    const server = require('@hapi/hapi').server({ port, host });
    server.route({ method: 'GET', path: '/', handler: () => text });
    server.start();
  },

  restify() {
    const server = require('restify').createServer();
    server.get('/', (request, response, next) => { response.send(text); next(); });
    server.listen(port, host);
  },

  polka() {
    require('polka')().get('/', (request, response) => response.end(text)).listen(port, host);
  },

  connect() {
    require('connect')().use((request, response) => response.end(text)).listen(port, host);
  },

  micro() {
    const http = require('http');
    const { serve } = require('micro');
    http.createServer(serve(async () => text)).listen(port, host);
  },

  h3() {
    const { H3, serve } = require('h3');
    serve(new H3().get('/', () => text), { port, hostname: host, silent: true });
  },

  hono() {
    const { Hono } = require('hono');
    const app = new Hono().get('/', (context) => context.text(text));
    require('@hono/node-server').serve({ fetch: app.fetch, port, hostname: host });
  },

  'feathers-express'() {
    const { feathers } = require('@feathersjs/feathers');
    const express = require('@feathersjs/express');
    const app = express.default(feathers());
    app.configure(express.rest());
    app.use('/', { find: async () => text });
    app.listen(port, host);
  },

  'feathers-koa'() {
    const { feathers } = require('@feathersjs/feathers');
    const { koa, rest } = require('@feathersjs/koa');
    const app = koa(feathers());
    app.configure(rest());
    app.use((context) => { context.body = text; });
    app.listen(port, host);
  },

  moleculer() {
    const { ServiceBroker } = require('moleculer');
    const broker = new ServiceBroker({ logger: false });
    broker.createService({ name: 'front', actions: { index: () => text } });
    broker.createService({
      mixins: [require('moleculer-web')],
      settings: { port, ip: host, routes: [{ path: '/', aliases: { 'GET /': 'front.index' } }] },
    });
    broker.start();
  },

  'nest-express'() {
    nest();
  },

  'nest-fastify'() {
    const { FastifyAdapter } = require('@nestjs/platform-fastify');
    nest(new FastifyAdapter());
  },

  tinyhttp() {
    const { App } = require('@tinyhttp/app');
    new App().get('/', (request, response) => response.send(text)).listen(port, undefined, host);
  },

  'find-my-way'() {
    const router = require('find-my-way')();
    router.on('GET', '/', (request, response) => response.end(text));
    require('http').createServer((request, response) => router.lookup(request, response)).listen(port, host);
  },

  'itty-router'() {
    const { AutoRouter } = require('itty-router');
    const { createServerAdapter } = require('@whatwg-node/server');
    const router = AutoRouter().get('/', () => new Response(text));
    require('http').createServer(createServerAdapter(router.fetch)).listen(port, host);
  },

  restana() {
    require('restana')().get('/', (request, response) => response.send(text)).start(port, host);
  },

  '0http'() {
    const { router, server } = require('0http')();
    router.get('/', (request, response) => response.end(text));
    server.listen(port, host);
  },

  elysia() {
    const { Elysia } = require('elysia');
    const { node } = require('@elysiajs/node');
    new Elysia({ adapter: node() }).get('/', () => text).listen({ port, hostname: host });
  },

  async loopback() {
    const { RestApplication } = require('@loopback/rest');
    const app = new RestApplication({ rest: { port, host } });
    const spec = { responses: {} };
    app.route('get', '/', spec, () => text);
    await app.start();
  },

  foxify() {
    const Foxify = require('foxify');
    const app = new Foxify();
    app.get('/', (request, response) => response.send(text));
    app.set('url', host).set('port', port).start();
  },

  rayo() {
    const rayo = require('rayo').default;
    rayo({ port, host }).get('/', (request, response) => response.end(text)).start();
  },

  server() {
    const server = require('server');
    server({ port, security: false }, server.router.get('/', () => text));
  },
};

// Nest, in plain JavaScript: the decorators are called as functions.
async function nest(...adapter) {
  require('reflect-metadata');
  const { Controller, Get, Module } = require('@nestjs/common');
  const { NestFactory } = require('@nestjs/core');
  class Front { index() { return text; } }
  Get()(Front.prototype, 'index', Object.getOwnPropertyDescriptor(Front.prototype, 'index'));
  Controller()(Front);
  class Root {}
  Module({ controllers: [Front] })(Root);
  const app = await NestFactory.create(Root, ...adapter, { logger: false });
  await app.listen(port, host);
}

frameworks[name]();
