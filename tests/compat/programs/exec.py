"""A program that binds and executes another, which listens: `execv` in its place, or as its child.

    exec.py PORT execv|pass [listen] [options]
"""

import os
import signal
import socket
import subprocess
import sys

from http_small import answer

words = sys.argv[1:]


def kinds(server):
    asked = (socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN)
    return [server.getsockopt(socket.SOL_SOCKET, option) for option in asked] + [server.getsockname()]


def expect(found, wanted):
    if found != wanted:
        sys.exit(f"found {found} and not {wanted}")


def bound(port, listens):
    return [socket.SOCK_STREAM, socket.AF_INET, socket.IPPROTO_TCP, listens, ("127.0.0.1", port)]


if words[0] == "child":
    port, listens = int(words[2]), int("listen" in words)
    server = socket.socket(fileno=int(words[1]))
    expect(kinds(server), bound(port, listens))
    if "options" in words:
        expect(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not listens:
        server.listen(64)
    expect(kinds(server), bound(port, 1))
    while True:
        connection, _ = server.accept()
        if "options" in words:
            expect(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
            expect(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        answer(connection, "as it was asked")

port = int(words[0])
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", port))
expect(kinds(server), bound(port, 0))
if "options" in words:
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    expect(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
if "listen" in words:
    server.listen(64)
server.set_inheritable(True)
command = [sys.executable, __file__, "child", str(server.fileno()), str(port)] + words[2:]
if words[1] == "execv":
    os.execv(sys.executable, command)
child = subprocess.Popen(command, pass_fds=[server.fileno()])
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
sys.exit(0 if child.wait() == -signal.SIGTERM else 1)
