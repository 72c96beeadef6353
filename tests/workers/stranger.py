"""Somebody else on the machine, who knows no more than what everybody can read. Usage: stranger.py PID WHAT

Finds the abstract sockets of the master with this PID and sends them what the master must not be hurt by. Says
"attacked N", with the number of sends that the kernel let through, and goes when its standard input ends.
"""

import array
import os
import signal
import socket
import struct
import sys

pid, what = sys.argv[1:3]
DGRAM, SEQPACKET = "0002", "0005"
kept = []


def names():
    # Whatever bytes others chose as names.
    for line in open("/proc/net/unix", errors="replace"):
        words = line.split()
        if len(words) == 8 and words[7].startswith(f"@maitred-{pid}-"):
            yield words[4], "\0" + words[7][1:]


def rights(to, fds):
    try:
        to.sendmsg([b"READY=1\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        return 1
    except OSError:
        return 0


def lingering():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = socket.create_connection(listener.getsockname())
    kept.append((listener, listener.accept()[0]))
    client.setblocking(False)
    try:
        while True:
            client.send(b"x" * 65536)
    except BlockingIOError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return client


def connect(kind, name):
    to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == DGRAM else socket.SOCK_SEQPACKET)
    to.connect(name)
    kept.append(to)
    return to


through = 0
found = list(names())
assert {kind for kind, _ in found} == {DGRAM, SEQPACKET}, found
if what == "linger":
    # Where ours turns out to be the last close, a signal ends it.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for kind, name in found:
        for _ in range(5):
            to, connection = connect(kind, name), lingering()
            through += rights(to, [connection.fileno()])
            connection.close()
elif what == "many":  # more descriptors than there is room for
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(9)]
    for kind, name in found:
        for _ in range(200):
            to = connect(kind, name)
            through += rights(to, fds)
            to.close()
elif what == "idle":  # knocks and says nothing
    for kind, name in found:
        if kind == SEQPACKET:
            kept.extend(connect(kind, name) for _ in range(200))
signal.setitimer(signal.ITIMER_REAL, 0)
print("attacked", through, flush=True)
sys.stdin.read()
os._exit(0)  # without waiting for what lingers
