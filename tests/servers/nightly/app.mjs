import { createServer } from 'node:http';

const text = `slot ${process.env.MAITRED_SLOT}\n`;
const server = createServer((request, response) => response.end(text));
await new Promise((listening) => server.listen(Number(process.argv[2]), '127.0.0.1', listening));
