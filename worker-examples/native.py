"""A worker that speaks maitred's protocol itself, with nothing but Python's standard library.

    maitred -w 4 --adapter native -- python3 worker-examples/native.py
"""

import os
import socket
import sys

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"
channel = socket.socket(fileno=int(os.environ["MAITRED_CHANNEL"]))

# I want to serve this address.
channel.send(f"LISTEN=tcp:{address}\nID=1\n".encode())
answer, fds, _, _ = socket.recv_fds(channel, 4096, 1)
if not fds:
    sys.exit(f"maitred says: {answer.decode()}")
door = socket.socket(fileno=fds[0])

# Hand me connections from now on.
channel.send(f"ACCEPTING=tcp:{address}\nID=1\nBACKLOG=511\n".encode())
while True:
    peer, fds, _, _ = socket.recv_fds(door, 128, 1)
    if not fds:
        break  # End of file: maitred is gone.
    with socket.socket(fileno=fds[0]) as connection:
        connection.recv(4096)
        body = f"slot {os.environ['MAITRED_SLOT']}, process {os.getpid()}\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())
