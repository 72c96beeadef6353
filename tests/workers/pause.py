"""A server that pauses its listening socket as HAProxy does, while a file is there, and listens on it again later.

    pause.py PORT DIR HOW      it pauses in slot 0 while DIR/pause is there

HOW: shutdown (HAProxy to 2.4), or disconnect: it connects to no address (later versions)
"""

import ctypes
import os
import select
import socket
import sys

port, home, slot = int(sys.argv[1]), sys.argv[2], os.environ["MAITRED_SLOT"]
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", port))
server.listen(64)
paused = False
while True:
    wanted = slot == "0" and os.path.exists(f"{home}/pause")
    if wanted and not paused:
        if sys.argv[3] == "shutdown":
            server.shutdown(socket.SHUT_WR)
            server.listen(64)
            server.shutdown(socket.SHUT_RD)
        else:
            # A `sockaddr` of zeros: AF_UNSPEC. Python's own `connect` cannot say that.
            assert ctypes.CDLL(None).connect(server.fileno(), bytes(16), 16) == 0
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == int("SECCOMP" in os.environ)
    if paused and not wanted:
        server.listen(64)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    paused = wanted
    if select.select([] if paused else [server], [], [], 0.02)[0]:
        try:
            connection, _ = server.accept()
        except OSError:
            continue
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(slot)}\r\n\r\n{slot}".encode())
        connection.close()
