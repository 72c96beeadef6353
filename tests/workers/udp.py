"""A UDP server, and perhaps a TCP one on the same port, that says in which process it is.

    udp.py HOST:PORT [tcp] [reuse] [silent]

reuse sets SO_REUSEPORT; silent prints what it was sent instead of answering.
"""

import os
import select
import socket
import sys

host, port = sys.argv[1].rsplit(":", 1)
options = sys.argv[2:]
name = f"slot {os.environ.get('MAITRED_SLOT', '-')} process {os.getpid()} generation {os.environ.get('MAITRED_GENERATION', '-')}"
family = socket.AF_INET6 if ":" in host else socket.AF_INET

datagrams = socket.socket(family, socket.SOCK_DGRAM)
if "reuse" in options:
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
datagrams.bind((host.strip("[]"), int(port)))
datagrams.setblocking(False)
watched = [datagrams]
if "tcp" in options:
    streams = socket.socket(family)
    streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    streams.bind((host.strip("[]"), int(port)))
    streams.listen()
    streams.setblocking(False)
    watched.append(streams)
assert datagrams.getsockname()[1] == int(port)
while True:
    for ready in select.select(watched, [], [])[0]:
        try:
            if ready is datagrams:
                text, peer = datagrams.recvfrom(2048)
                datagrams.sendto(name.encode(), peer)
            else:
                connection, _ = ready.accept()
                connection.setblocking(True)
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())
                connection.close()
        except BlockingIOError:
            pass  # another process was faster
