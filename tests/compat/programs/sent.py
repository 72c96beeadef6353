"""Two children: one binds, and sends the socket to the other, which accepts.

    sent.py PORT [listen]
"""

import os
import signal
import socket
import sys

from http_small import serve

port, listens = int(sys.argv[1]), "listen" in sys.argv
one, other = socket.socketpair()

binder = os.fork()
if binder == 0:
    other.close()
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    if listens:
        server.listen(64)
    socket.send_fds(one, [b"here"], [server.fileno()])
    one.recv(1)
    server.close()
    while True:
        signal.pause()

acceptor = os.fork()
if acceptor == 0:
    one.close()
    _, fds, _, _ = socket.recv_fds(other, 10, 1)
    server = socket.socket(fileno=fds[0])
    if not listens:
        server.listen(64)
    other.send(b"x")
    serve(server, "as it was asked")

one.close()
other.close()


def end(*_):
    for child in (binder, acceptor):
        os.kill(child, signal.SIGTERM)
    for child in (binder, acceptor):
        os.waitpid(child, 0)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
while True:
    signal.pause()
