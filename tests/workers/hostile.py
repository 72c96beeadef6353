"""A worker that attacks its master, in slot 0; the others serve. Usage: hostile.py ATTACK

It speaks the protocol by hand, because no library lets one do such things. After its attack it serves, too, unless
the attack is to die.
"""

import array
import errno
import os
import signal
import socket
import struct
import sys
import time

attack, slot = sys.argv[1], os.environ["MAITRED_SLOT"]
channel = socket.socket(fileno=int(os.environ["MAITRED_CHANNEL"]))
SO_PASSRIGHTS = 83  # include/uapi/asm-generic/socket.h


def rights(to, text, fds):
    try:
        to.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    except OSError as error:
        # An ordinary user has no more of them under way than descriptors open (unix(7)).
        if error.errno != errno.ETOOMANYREFS:
            raise


def lingering(seconds=3600):
    """A connection whose last close waits: nobody reads at its other end, which stays open."""
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
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return client


def listen():
    channel.send(b"LISTEN=tcp:127.0.0.1:0\nID=1\n")
    while True:
        answer, fds, _, _ = socket.recv_fds(channel, 4096, 1)
        if fds and b"ID=1\n" in answer:
            return socket.socket(fileno=fds[0])


def accepting():
    channel.send(b"ACCEPTING=tcp:127.0.0.1:0\nID=1\n")


def take():
    return socket.recv_fds(door, 128, 1)[1][0]


def serve():
    while True:
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
        if not fds:
            return
        with socket.socket(fileno=fds[0]) as connection:
            try:
                connection.recv(4096)
                body = f"slot {slot}, process {os.getpid()}\n"
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            except OSError:
                pass


def done():
    channel.send(b"STATUS=attacked\n")


kept = []
door = listen()
if slot != "0":
    accepting()
    serve()
    sys.exit()
if attack.startswith("SO_"):  # each packet brings something else first, also to the master that takes it back
    option = {"SO_PASSCRED": 16, "SO_PASSPIDFD": 76, "SO_PASSSEC": 34}
    for name in option if attack == "SO_ALL" else [attack]:
        try:
            door.setsockopt(socket.SOL_SOCKET, option[name], 1)
        except OSError:
            pass  # an older kernel
    accepting()
    signal.pause()  # takes nothing
accepting()
if attack == "no-rights":  # lets nothing in
    try:
        door.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        pass
elif attack == "linger":  # sends sockets whose last close would wait, wherever something can be sent
    # Where ours turns out to be the last close, a signal ends it.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for _ in range(20):
        for where in (channel, door):
            connection = lingering()
            rights(where, b"READY=1\n", [connection.fileno()])
            connection.close()
        own = lingering()  # as its own socket, which is none to listen on
        rights(channel, b"LISTEN=tcp:127.0.0.1:0\nID=9\n", [own.fileno()])
        own.close()
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # one in another's queue
        connection = lingering()
        rights(outer, b"x", [connection.fileno()])
        rights(door, b"x", [inner.fileno()])
        for each in (connection, outer, inner):
            each.close()
elif attack == "many":  # far more descriptors than anybody asked for
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(253)]
    for _ in range(100):
        rights(door, b"x", fds)
        rights(channel, b"READY=1\n", fds)
    for fd in fds:
        os.close(fd)
elif attack == "return-same":  # one connection, again and again
    connection = take()
    done()
    for _ in range(5000):
        rights(door, b"x", [connection])
    os.close(connection)
elif attack == "return-all":
    done()
    while True:
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
        if not fds:
            sys.exit()
        rights(door, b"x", fds)
        os.close(fds[0])
signal.setitimer(signal.ITIMER_REAL, 0)
done()
serve()
