import { createServer, type IncomingMessage, type ServerResponse } from 'http';

const text: string = `slot ${process.env.MAITRED_SLOT}\n`;
createServer((request: IncomingMessage, response: ServerResponse): void => {
  response.end(text);
}).listen(Number(process.argv[2]), '127.0.0.1');
