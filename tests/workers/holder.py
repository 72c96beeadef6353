"""A worker that has copies of what the master uses, and does something to them. Usage: holder.py DEED ADDRESS MARK.

The worker in slot 0 sends its own socket along, which becomes the listener, and keeps a copy. On USR1 it does the
deed, says so on its standard error, and goes on serving for as long as it can. The others begin when there is a file MARK.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

deed, address = sys.argv[1], sys.argv[2]
slot = os.environ["MAITRED_SLOT"]
channel = socket.socket(fileno=int(os.environ["MAITRED_CHANNEL"]))
host, port = address.removeprefix("tcp:").rsplit(":", 1)
own = socket.socket(socket.AF_UNIX) if address.startswith("unix:") else socket.socket()
ask = f"LISTEN={address}\nID=1\n".encode()
if slot == "0":
    socket.send_fds(channel, [ask], [own.fileno()])
else:
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
    channel.send(ask)
door = None
while door is None:
    answer, fds, _, _ = socket.recv_fds(channel, 4096, 1)
    door = socket.socket(fileno=fds[0]) if fds else None
channel.send(f"ACCEPTING={address}\nID=1\nBACKLOG=511\n".encode())
if slot == "0":
    open(sys.argv[3], "w").close()


def steal():
    while True:
        try:
            own.accept()[0].close()
        except OSError:
            return


def again_and_again(what):
    while True:
        try:
            what()
        except OSError:
            pass


def beside(what):
    if os.fork() == 0:
        # Nothing ends these but the end of the worker.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        what()
        os._exit(0)


def do(*_):
    if deed == "close-inherited":
        os.closerange(3, 1024)
    elif deed == "close-door":
        door.close()
    elif deed == "close-channel":
        channel.close()
    elif deed == "close-both":
        channel.close()
        door.close()
    elif deed == "shut-door-read":
        door.shutdown(socket.SHUT_RD)
    elif deed == "shut-door-write":
        door.shutdown(socket.SHUT_WR)
    elif deed == "shut-door":
        door.shutdown(socket.SHUT_RDWR)
    elif deed == "shut-channel":
        channel.shutdown(socket.SHUT_RDWR)
    elif deed == "shut":
        own.shutdown(socket.SHUT_RDWR)
    elif deed == "shut-often":
        threading.Thread(target=again_and_again, args=[lambda: own.shutdown(socket.SHUT_RDWR)], daemon=True).start()
    elif deed == "shut-and-connect":
        own.shutdown(socket.SHUT_RDWR)
        other = socket.create_server(("127.0.0.1", 0))
        own.connect_ex(other.getsockname())
    elif deed == "block":
        own.setblocking(True)
    elif deed == "block-for-long":
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 100, 0))
        os.set_blocking(own.fileno(), True)
    elif deed == "steal":
        own.setblocking(True)
        # Processes, since threads of Python run in turns: the mode is to be set while the others accept.
        beside(steal)
        beside(steal)
        beside(lambda: again_and_again(lambda: os.set_blocking(own.fileno(), True)))
    elif deed == "block-often":
        beside(lambda: again_and_again(lambda: os.set_blocking(own.fileno(), True)))
    print("did", deed, file=sys.stderr, flush=True)


if slot == "0":
    signal.signal(signal.SIGUSR1, do)
while True:
    try:
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
    except OSError:
        fds = []
    if not fds:
        signal.pause()
        continue
    with socket.socket(fileno=fds[0]) as connection:
        connection.recv(4096)
        body = f"slot {slot}, process {os.getpid()}\n"
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
