"""An ordinary asyncio server. Usage: asyncio_server.py PORT"""

import asyncio
import os
import sys


async def serve(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    body = f"slot {os.environ.get('MAITRED_SLOT', '-')}, process {os.getpid()}\n"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
