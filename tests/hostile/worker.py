"""Workers that speak the protocol by hand; the one in slot 0 turns against its master.

Usage: worker.py ADDRESS SEED DIRECTORY

What it does is drawn from SEED and the worker's number, and named on standard error before it is done. Once there is a
file `calm` in DIRECTORY, the worker in slot 0 is as good as the others. In the file `seen` there it writes down
each client that it got, before it takes it: what becomes of that one is nobody else's fault.
"""

import array
import ctypes
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

address, seed, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
slot = int(os.environ["MAITRED_SLOT"])
hostile = slot == 0 and not os.path.exists(f"{directory}/calm")
worker = int(os.environ["MAITRED_WORKER"])
NUMBER = int(os.environ["MAITRED_CHANNEL"])
channel = socket.socket(fileno=os.dup(NUMBER))
# A client may take so long over its request.
CLIENT_TIMEOUT = 2
# Processes of its own that it has at once.
CHILDREN = 12
# Where it wants an answer it waits for one so long; to much of what it says there is none.
ANSWER_TIMEOUT = 0.02


def ask(packet, fds=()):
    if fds:
        socket.send_fds(channel, [packet], list(fds))
    else:
        channel.send(packet)
    return socket.recv_fds(channel, 4096, 2)


def answer(connection):
    try:
        with connection:
            connection.settimeout(0.1 if hostile else CLIENT_TIMEOUT)
            if not connection.recv(4096):
                return
            body = f"slot {slot}, process {os.getpid()}\n"
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    except OSError:
        pass


def serve(door):
    door.setblocking(True)
    while True:
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
        if not fds:
            os._exit(0)
        threading.Thread(target=answer, args=(socket.socket(fileno=fds[0]),), daemon=True).start()


def begin():
    """Serves like anybody else; returns the hand-off socket."""
    while True:
        text, fds, _, _ = ask(f"LISTEN=tcp:{address}\nID=1\n".encode())
        if fds:
            channel.send(f"ACCEPTING=tcp:{address}\nID=1\nBACKLOG=511\n".encode())
            return socket.socket(fileno=fds[0])
        if not text:
            os._exit(0)


door = begin()
if not hostile:
    serve(door)

chance = random.Random(seed * 1_000_003 + worker)
doors = [door]
children = []
seen = os.open(f"{directory}/seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
identity = 1


def say(what):
    try:
        os.write(2, f"hostile {seed}/{worker}: {what}\n".encode())
    except OSError:
        pass


def junk(most=200):
    return chance.randbytes(chance.choice([0, 1, 3, 16, most]))


def word():
    return chance.choice([
        "", "0", "1", "-1", "x", "=", "18446744073709551615", "99999999999999999999", "777", "\x1b[31mred\x07",
        "\u202e\u2028", "x" * 3000, "1 /proc/self/fd/0", "tcp:", "unix:",
    ])


def place():
    return chance.choice([
        f"tcp:{address}", "tcp:127.0.0.2:0", "tcp:[::1]:0", "tcp:0.0.0.0:1", "tcp:127.0.0.1:81", "tcp:256.1.1.1:80",
        "tcp:10.255.255.255:80", f"unix:{directory}/w{chance.randrange(20)}.sock", f"unix:@h{os.getpid()}-{chance.randrange(20)}",
        "unix:/etc/cron.d/x", "unix:/proc/1/x", "unix:relative", f"unix:{directory}/" + "y" * 200, f"unix:{directory}/seen",
    ])


def full_socket():
    """One end of a pair that takes nothing more, made to wait."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, chance.choice([socket.SOCK_STREAM, socket.SOCK_SEQPACKET]))
    ours.setblocking(False)
    try:
        while True:
            ours.send(b"x" * 4096)
    except OSError:
        ours.setblocking(True)
    keep.append(theirs)
    return ours


def lingering():
    """A connection whose last close waits, since what was sent cannot be delivered."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = socket.create_connection(listener.getsockname())
    keep.append(listener.accept()[0])
    client.setblocking(False)
    try:
        while True:
            client.send(b"x" * 65536)
    except OSError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    return client


def listening():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    return listener


def nested():
    """Sockets in sockets."""
    first, second = socket.socketpair()
    for _ in range(4):
        outer, inner = socket.socketpair()
        socket.send_fds(outer, [b"x"], [first.fileno(), second.fileno()])
        first, second = outer, inner
    keep.append(second)
    return first


def bound(kind=socket.SOCK_STREAM):
    it = socket.socket(chance.choice([socket.AF_INET, socket.AF_INET6]), kind)
    if chance.random() < 0.5:
        it.setsockopt(socket.SOL_SOCKET, chance.choice([socket.SO_REUSEADDR, 15]), 1)
    return it


KINDS = [
    lambda: os.open("/dev/null", os.O_RDWR), lambda: os.open("/", os.O_RDONLY), lambda: os.open("/dev/tty", os.O_RDWR),
    lambda: os.memfd_create("x"), lambda: os.pidfd_open(os.getpid()), lambda: os.eventfd(0), lambda: os.pipe()[0],
    lambda: os.dup(select.epoll().fileno()),
    lambda: bound().detach(), lambda: bound(socket.SOCK_DGRAM).detach(), lambda: socket.socket(socket.AF_UNIX).detach(),
    lambda: listening().detach(), lambda: lingering().detach(), lambda: full_socket().detach(), lambda: nested().detach(),
    lambda: os.dup(channel.fileno()), lambda: os.dup(chance.choice(doors).fileno()),
    lambda: socket.create_connection(tuple_of(address)).detach(),
]
keep = []
later = []


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


def tuple_of(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def descriptor():
    while True:
        try:
            return chance.choice(KINDS)()
        except OSError:
            pass


def descriptors(most):
    return [descriptor() for _ in range(chance.randrange(most + 1))]


def send(sock, packet, fds=(), flags=socket.MSG_DONTWAIT):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([packet], rights, flags)
        return True
    except (OSError, ValueError):
        return False
    finally:
        for fd in fds:
            dispose(fd)


def packet():
    global identity
    identity += 1
    keys = [
        ("LISTEN", place), ("ACCEPTING", place), ("CLOSE", word), ("TRUNCATED", word), ("READY", word), ("STOPPING", word),
        ("STATUS", word), ("WATCHDOG", word), ("PING", word), ("PONG", word), ("TOKEN", word), ("FOLLOW", inode), ("BACKLOG", word),
        ("UMASK", word), ("ALONE", word), ("HOLD", word), ("REPLY", word), (word(), word), ("MESSAGE", word), ("REPLACE", word),
        ("LISTENING", place), ("STOP", word),
    ]
    lines = [f"{key}={value()}" for key, value in chance.sample(keys, chance.randrange(1, 7))]
    for key in ("ALONE", "HOLD", "REPLY"):
        if chance.random() < 0.3:
            lines.append(f"{key}=1")
    if chance.random() < 0.8:
        lines.append(f"ID={chance.choice([identity, 1, chance.randrange(identity + 1)])}")
    text = "\n".join(lines).encode("utf-8", "replace")
    if chance.random() < 0.05:
        text += junk()
    return text[: chance.choice([4096, 4096, 60000, len(text) // 2])]


def inode():
    ours = os.fstat(chance.choice(doors + [channel]).fileno()).st_ino
    return str(chance.choice([ours, ours + 1, 0, 1, 2**64 - 1]))


def receive(sock, most):
    """What is there; `socket.recv_fds` forgets its flags in some versions."""
    text, control, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4 * most), socket.MSG_DONTWAIT)
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // 4 * 4])
    return text, list(fds)


def drain(sock):
    """Takes answers, and the descriptors in them, for they could be many."""
    try:
        while True:
            text, fds = receive(sock, 8)
            if not text:
                return
            for fd in fds:
                if len(doors) < 8 and b"VIA=handoff" in text:
                    doors.append(socket.socket(fileno=fd))
                else:
                    os.close(fd)
    except OSError:
        pass


def take(sock):
    """One connection, or nothing."""
    try:
        peer = sock.recv(128, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if len(peer) >= 4:
            os.write(seen, b"%d\n" % int.from_bytes(peer[2:4], "big"))
        _, fds = receive(sock, 1)
        return fds[0] if fds else None
    except OSError:
        return None


def speak():
    for _ in range(chance.randrange(1, 60)):
        send(channel, packet(), descriptors(3) if chance.random() < 0.2 else ())
        if chance.random() < 0.5:
            drain(channel)
    drain(channel)


def babble():
    for _ in range(chance.randrange(1, 200)):
        send(channel, junk(chance.choice([4095, 4096, 4097, 60000])))


def flood():
    text, until = packet(), time.monotonic() + 0.3
    while time.monotonic() < until:
        send(channel, text)
        if chance.random() < 0.1:
            drain(channel)


def hand_in():
    """What no connection is, on a hand-off socket."""
    for _ in range(chance.randrange(1, 40)):
        send(chance.choice(doors), junk(), descriptors(chance.choice([0, 1, 1, 9])))


def many():
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(253)]
    send(chance.choice(doors + [channel]), chance.choice([b"x", b"READY=1\n", b""]), files)


def serve_badly():
    for _ in range(chance.randrange(1, 30)):
        sock = chance.choice(doors)
        fd = take(sock)
        if fd is None:
            continue
        how = chance.randrange(8)
        connection = socket.socket(fileno=fd)
        try:
            if how == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, chance.choice([0, 20])))
                connection.send(b"x" * 1_000_000, socket.MSG_DONTWAIT)
            if how == 1:
                connection.shutdown(chance.randrange(3))
            if how == 2:
                connection.setblocking(chance.random() < 0.5)
            if how in (0, 1, 2, 3, 4):
                for _ in range(chance.choice([1, 1, 1, 2, 50])):
                    send(chance.choice(doors), b"no", [os.dup(connection.fileno())])
            if how in (4, 5, 6):
                answer(connection)
        except OSError:
            pass
        if connection.fileno() >= 0:
            dispose(connection.detach())


def options():
    sock = chance.choice(doors + [channel])
    number = chance.choice([16, 34, 76, 77, 83, 84, 7, 8, 13, 20, 21, 42, 18, 2, 9])
    value = chance.choice([struct.pack("i", 0), struct.pack("i", 1), struct.pack("ii", 1, 20), struct.pack("qq", 0, 1), struct.pack("i", 1 << 30)])
    try:
        sock.setsockopt(socket.SOL_SOCKET, number, value)
    except OSError:
        pass
    sock.setblocking(chance.random() < 0.5)


def own_listener():
    """Asks for an address with a socket of its own, which may become the listener, and then mistreats that."""
    global identity
    identity += 1
    own = bound()
    more = "".join(chance.sample(["ALONE=1\n", "HOLD=1\n", "REPLY=1\n"], chance.randrange(4)))
    fds = [own.fileno()] + descriptors(1)
    where = chance.choice(["tcp:127.0.0.2:0", "tcp:127.0.0.3:0", place()])
    send(channel, f"LISTEN={where}\nID={identity}\n{more}".encode(), [os.dup(fds[0])] + fds[1:])
    if chance.random() < 0.7:
        send(channel, f"ACCEPTING={where}\nID={identity}\nBACKLOG={chance.choice([-1, 0, 1, 511])}\n".encode())
    select.select([channel], [], [], ANSWER_TIMEOUT)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
        own.setblocking(True)
        target = own.getsockname()[:2]
        for _ in range(3):
            client = socket.socket(own.family)
            client.setblocking(False)
            client.connect_ex(target)
            keep.append(client)
        if chance.random() < 0.5:
            own.shutdown(chance.randrange(3))
    except OSError:
        pass
    if chance.random() < 0.5:
        send(channel, f"CLOSE=x\nID={identity}\n".encode())
    drain(channel)


def notify():
    name = os.environ.get("NOTIFY_SOCKET", "")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        sock.connect("\0" + name[1:])
    except OSError:
        return
    notes = [b"FDSTORE=1", b"MAINPID=1", b"STOPPING=1", b"READY=1", b"BARRIER=1", b"STATUS=\x1b[2J", b"x" * 5000, b"", b"LISTEN=tcp:127.0.0.1:1\nID=9"]
    for _ in range(chance.randrange(1, 100)):
        send(sock, chance.choice(notes), descriptors(chance.choice([0, 1, 9])) if chance.random() < 0.3 else ())


def visit():
    """The door, with and without its secret."""
    name, token = os.environ.get("MAITRED_DOOR", " ").split(" ", 1)
    for _ in range(chance.randrange(1, 40)):
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        visitor.setblocking(False)
        try:
            visitor.connect("\0" + name)
            said = packet() + (f"\nTOKEN={token}\n".encode() if chance.random() < 0.7 else b"")
            send(visitor, said, descriptors(2) if chance.random() < 0.5 else ())
        except OSError:
            pass
        keep.append(visitor)


def chatter():
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        os.write(chance.choice([1, 2]), chance.choice([b"\x1b[31mred\r\n", b"x" * 5000, b"\x00\x07" * 50, b"\n" * 50]))


def child():
    children[:] = [pid for pid in children if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    if len(children) >= CHILDREN:
        os.kill(children.pop(0), signal.SIGKILL)
        return
    pid = os.fork()
    if pid:
        children.append(pid)
        return
    how = chance.randrange(5)
    if how in (0, 1):
        os.setsid()
    if how in (1, 2) and os.fork():
        os._exit(0)
    if how == 3:
        for sock in doors + [channel]:
            sock.close()
        os.close(NUMBER)
    if how == 4:
        os.execvp("sleep", ["sleep", "600"])
    time.sleep(600)  # stays behind for the master to find and kill; nothing waits for its end
    os._exit(0)


def pause():
    """Stops for a while, as one that is being debugged."""
    if os.fork() == 0:
        time.sleep(chance.choice([0.1, 1.5]))  # how long it stands still; nothing waits for it
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)


def name():
    ctypes.CDLL(None).prctl(15, chance.choice([b"\xff\xfe", b") S 1 1 1", b"a\nTgid:\t1", b""]), 0, 0, 0)


def rename_sockets():
    for number in range(20):
        path = f"{directory}/w{number}.sock"
        try:
            chance.choice([os.unlink, lambda p: os.rename(p, p + "x"), lambda p: os.chmod(p, 0)])(path)
        except OSError:
            pass


def rest():
    time.sleep(chance.choice([0.05, 0.3, 1.2]))  # the rhythm of the attack, which synchronises nothing


def shut():
    sock = chance.choice(doors + [channel])
    try:
        sock.shutdown(chance.randrange(3))
    except OSError:
        pass


def hang_up():
    chance.choice(doors + [channel]).close()
    if chance.random() < 0.5:
        os.close(NUMBER)
    time.sleep(chance.choice([0.1, 3]))
    os._exit(0)


def die():
    chance.choice([
        lambda: os._exit(0), lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os.kill(os.getpid(), signal.SIGSEGV),
        lambda: os.killpg(0, signal.SIGKILL),
    ])()


DEEDS = [
    (speak, 10), (babble, 4), (flood, 3), (hand_in, 8), (many, 2), (serve_badly, 25), (options, 6), (own_listener, 8), (notify, 4),
    (visit, 4), (chatter, 2), (child, 4), (pause, 1), (name, 1), (rename_sockets, 1), (rest, 6), (shut, 1), (hang_up, 1), (die, 1),
]
signal.signal(signal.SIGTERM, chance.choice([signal.SIG_DFL, signal.SIG_IGN]))
for deed in chance.choices([deed for deed, _ in DEEDS], [weight for _, weight in DEEDS], k=100_000):
    if os.path.exists(f"{directory}/calm"):
        os._exit(0)
    say(deed.__name__)
    try:
        deed()
    except OSError as error:
        say(f"{deed.__name__}: {error}")
    while len(keep) > 60:
        dispose(keep.pop(0).detach())
    drain(channel)
