"""Plain TCP servers that say their slot to whoever connects: tcp_servers.py NAME PORT."""

import asyncio
import os
import sys
import threading

HOST = "127.0.0.1"


def greeting():
    return f"slot {os.environ['MAITRED_SLOT']}\n".encode()


def socketserver_one(port, kind="TCPServer"):
    import socketserver

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(greeting())

    server = getattr(socketserver, kind)
    server.allow_reuse_address = True
    server((HOST, port), Handler).serve_forever()


def socketserver_threads(port):
    socketserver_one(port, "ThreadingTCPServer")


def socketserver_forks(port):
    socketserver_one(port, "ForkingTCPServer")


def asyncio_streams(port):
    async def handle(reader, writer):
        writer.write(greeting())
        await writer.drain()
        writer.close()

    async def serve():
        async with await asyncio.start_server(handle, HOST, port) as server:
            await server.serve_forever()

    asyncio.run(serve())


def asyncio_protocol(port):
    class Greeter(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(greeting())
            transport.close()

    async def serve():
        server = await asyncio.get_running_loop().create_server(Greeter, HOST, port)
        await server.serve_forever()

    asyncio.run(serve())


def uvloop_streams(port):
    import uvloop

    uvloop.install()
    asyncio_streams(port)


def selectors_loop(port):
    """Non-blocking accepts by hand, with poll."""
    import select
    import socket

    listener = socket.create_server((HOST, port))
    listener.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        poll.poll()
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            connection.sendall(greeting())


def forked_children(port):
    """multiprocessing children that inherit the parent's listener, and block in accept."""
    import multiprocessing
    import socket

    listener = socket.create_server((HOST, port))

    def child():
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(greeting())

    children = [multiprocessing.get_context("fork").Process(target=child, daemon=True) for _ in range(3)]
    for process in children:
        process.start()
    for process in children:
        process.join()


def accept_threads(port):
    """Several threads in accept on one listener."""
    import socket

    listener = socket.create_server((HOST, port))

    def loop():
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(greeting())

    for _ in range(3):
        threading.Thread(target=loop).start()


def listener_process(port):
    """multiprocessing.connection, whose greeting is a challenge."""
    from multiprocessing.connection import Listener

    with Listener((HOST, port)) as listener:
        while True:
            with listener.accept() as connection:
                connection.send_bytes(greeting())


def trio(port):
    import trio

    async def handle(stream):
        await stream.send_all(greeting())
        await stream.aclose()

    trio.run(trio.serve_tcp, handle, port)


def anyio(port, backend="asyncio"):
    import anyio

    async def handle(stream):
        async with stream:
            await stream.send(greeting())

    async def serve():
        await (await anyio.create_tcp_listener(local_host=HOST, local_port=port)).serve(handle)

    anyio.run(serve, backend=backend)


def curio(port):
    import curio

    async def handle(client, address):
        await client.sendall(greeting())

    curio.run(curio.tcp_server, HOST, port, handle)


def gevent(port):
    from gevent.server import StreamServer

    def handle(connection, address):
        connection.sendall(greeting())
        connection.close()

    StreamServer((HOST, port), handle).serve_forever()


def gevent_patched(port):
    from gevent import monkey

    monkey.patch_all()
    socketserver_threads(port)


def eventlet(port):
    import eventlet

    def handle(connection, address):
        connection.sendall(greeting())
        connection.close()

    eventlet.serve(eventlet.listen((HOST, port)), handle)


def tornado(port):
    from tornado.tcpserver import TCPServer

    class Greeter(TCPServer):
        async def handle_stream(self, stream, address):
            await stream.write(greeting())
            stream.close()

    async def serve():
        Greeter().listen(port, HOST)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
