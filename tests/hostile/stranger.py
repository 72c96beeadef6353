"""A stranger on the machine, of another user where the tests run as root.

Usage: python3 -c PROGRAM MASTER SEED SECONDS CONTROL HOST:PORT

It finds the master's abstract sockets in /proc/net/unix, as anybody can, and goes to the control socket, to
directories for temporary files and to the service itself. What it does is drawn from SEED.
"""

import array
import os
import random
import socket
import struct
import sys
import time

master, seed, seconds, control, service = sys.argv[1:]
chance = random.Random(int(seed))
host, port = service.rsplit(":", 1)
service = (host, int(port))
until = time.monotonic() + float(seconds)
# Sockets that it holds on to at once.
HELD = 100
keep, later, made = [], [], []
print(f"stranger {seed}: user {os.geteuid()}", flush=True)


def dispose(fd):
    """Closes a descriptor, but does not wait for one that lingers: that is for others to be caught by."""
    try:
        lingers = socket.socket(fileno=os.dup(fd))
        waits = struct.unpack("ii", lingers.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0]
        if not waits:
            lingers.close()
            os.close(fd)
            return
    except OSError:
        os.close(fd)
        return
    os.close(fd)
    later.append(lingers)
    while len(later) > 100:
        old = later.pop(0)
        old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        old.close()


def names():
    found = []
    with open("/proc/net/unix", "rb") as table:
        for line in table:
            words = line.split()
            if words and words[-1].startswith(b"@maitred-" + master.encode() + b"-"):
                found.append(b"\0" + words[-1][1:])
    return found


def lingering():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = socket.create_connection(listener.getsockname(), 1)
    keep.append(listener.accept()[0])
    client.setblocking(False)
    try:
        while True:
            client.send(b"x" * 65536)
    except OSError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    return client.detach()


def descriptors():
    kinds = [lambda: os.open("/dev/null", os.O_RDWR), lambda: os.pipe()[0], lingering, lambda: socket.socket().detach(), lambda: os.eventfd(0)]
    return [chance.choice(kinds)() for _ in range(chance.choice([0, 1, 2, 9, 60]))]


def send(sock, text, fds):
    try:
        sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [], socket.MSG_DONTWAIT)
    except OSError:
        pass
    for fd in fds:
        dispose(fd)


def text():
    return chance.choice([
        b"", b"x", b"READY=1", b"STOPPING=1", b"LISTEN=tcp:127.0.0.1:0\nID=1\nTOKEN=" + b"0" * 32, b"TOKEN=", b"x" * 5000, b"FDSTORE=1",
        b"STATUS=\x1b[2J", b"\xff\xfe", b"WATCHDOG=1", chance.randbytes(300),
    ])


def knock():
    """The door, and the notification sockets."""
    for name in names():
        for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            for _ in range(chance.randrange(1, 12)):
                sock = socket.socket(socket.AF_UNIX, kind)
                sock.setblocking(False)
                try:
                    sock.connect(name)
                except OSError:
                    break
                for _ in range(chance.randrange(1, 4)):
                    send(sock, text(), descriptors() if chance.random() < 0.5 else [])
                if chance.random() < 0.3:
                    keep.append(sock)


def claim_name():
    """Names like those, and names that break the lines of /proc/net/unix."""
    sock = socket.socket(socket.AF_UNIX, chance.choice([socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]))
    try:
        sock.bind(chance.choice([b"\0maitred-" + master.encode() + b"-" + chance.randbytes(4), b"\0\xff\n0000: 1 2 3\n\n", b"\0" + chance.randbytes(90)]))
        keep.append(sock)
    except OSError:
        pass


def ask_control():
    for _ in range(chance.randrange(1, 30)):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(control)
            sock.send(chance.choice([b"{}\n", b'{"command":"status"}\n', b"[" * 4000 + b"\n", b"x" * 9000, b"", b"\xff\n", b'{"command":"scale","to":{"to":-1}}\n']))
        except OSError:
            pass
        if chance.random() < 0.5:
            keep.append(sock)


def play_with_files():
    """What it can make where everybody can write, and try to take away from the master."""
    for directory in (os.path.dirname(control), "/tmp", "/dev/shm"):
        for name in ("maitred-0", f"maitred-stranger-{seed}", f".maitred-{master}", os.path.basename(control) + ".lock"):
            path = f"{directory}/{name}"
            try:
                chance.choice([
                    lambda: os.symlink("/etc/passwd", path), lambda: os.mkdir(path, 0o777), lambda: os.mkfifo(path),
                    lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666)),
                ])()
                made.append(path)
            except OSError:
                pass
    # With its own user's rights it could, and that proves nothing.
    if os.geteuid() != os.stat(control).st_uid:
        try:
            chance.choice([os.unlink, lambda path: os.chmod(path, 0o777), lambda path: os.rename(path, path + "x")])(control)
        except OSError:
            pass


def be_a_client():
    for _ in range(chance.randrange(1, 10)):
        sock = socket.socket()
        sock.settimeout(0.5)
        try:
            if chance.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(service)
            sock.send(chance.choice([b"GET / HTTP/1.1\r\n\r\n", b"G", chance.randbytes(1000), b"x" * 60000]))
            if chance.random() < 0.4:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if chance.random() < 0.3:
                sock.shutdown(chance.randrange(3))
            if chance.random() < 0.3:
                sock.send(b"!", socket.MSG_OOB)
        except OSError:
            pass
        if chance.random() < 0.5:
            keep.append(sock)
        else:
            sock.close()


def half_open():
    """Begins to connect and goes away before it has."""
    for _ in range(chance.randrange(1, 50)):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.connect_ex(service)
        sock.close()


def look_around():
    for name in ("fd", "environ", "maps", "root", "cwd", "mem", "exe", "fd/100", "fd/3"):
        try:
            with open(f"/proc/{master}/{name}", "rb") as file:
                file.read(100)
        except OSError:
            pass
    try:
        os.kill(int(master), 0)
    except OSError:
        pass


DEEDS = [(knock, 6), (claim_name, 1), (ask_control, 2), (play_with_files, 1), (be_a_client, 5), (half_open, 2), (look_around, 1)]
deeds = 0
while time.monotonic() < until:
    deed = chance.choices([d for d, _ in DEEDS], [w for _, w in DEEDS])[0]
    try:
        deed()
    except OSError:
        pass
    deeds += 1
    while len(keep) > HELD:
        dispose(keep.pop(0).detach())
    time.sleep(0.01)  # the rhythm of the attack, which synchronises nothing
for path in made:
    for remove in (os.unlink, os.rmdir):
        try:
            remove(path)
        except OSError:
            pass
print(f"stranger {seed}: {deeds} deeds", flush=True)
