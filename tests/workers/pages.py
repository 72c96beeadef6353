"""A small HTTP server for tests about the lives of workers. It knows nothing of maitred but what others
know, too (sd_notify, s6), and ends at once on TERM.

    pages.py ADDRESS:PORT DIR [OPTION]...

OPTION: notify   says READY=1 when DIR/ready-SLOT is there
        fd       writes a line to the notification descriptor then
        tidy     notes each TERM in DIR/terms-SLOT, and ends when DIR/tidy is there, after making DIR/tidied-SLOT
        deaf     does not heed TERM
        health   first listens on DIR/health.sock, and on its address when DIR/main is there
        pipe     also listens on DIR/PID.pipe, as tsx does
        self     has a connection to its own address, over which a request comes that has no end
        watchdog says WATCHDOG=1 once before it listens, then again and again, unless DIR/mute-SLOT is there

Files in DIR switch what it does while it runs:
  crash      it ends as soon as it listens
  ready-SLOT see above; also /health answers 503 until it is there
  ill-SLOT   /health answers 500
  mute-SLOT  /health answers nothing
  go         /wait answers as soon as it is there
"""

import os
import pathlib
import signal
import socket
import sys
import threading
import time

host, port = sys.argv[1].split(":")
home = pathlib.Path(sys.argv[2])
options = sys.argv[3:]
slot = os.environ.get("MAITRED_SLOT", "-")
grown = []


def there(name):
    return (home / name).exists()


def wait_for(name):
    while not there(name):
        time.sleep(0.005)  # looks for a test's switch, a file; nothing is assumed of the time


def notify(text):
    name = os.environ["NOTIFY_SOCKET"]
    assert name.startswith("@"), name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("\0" + name[1:])
        client.send(text.encode())


def page(path, healthy):
    """The status and body of an answer, or nothing for none."""
    if path == "/health":
        while there(f"mute-{slot}"):
            time.sleep(0.005)  # looks for a test's switch, as above
        if there(f"ill-{slot}"):
            return "500 Ill", ""
        return ("200 OK", "well") if there(f"ready-{slot}") else ("503 Not Yet", "")
    if path == "/wait":
        wait_for("go")
    if path == "/grow":
        grown.append(b"x" * (128 << 20))
    words = ["slot", slot, "generation", os.environ.get("MAITRED_GENERATION", "-")]
    words += ["process", str(os.getpid()), os.environ.get("GREETING", "-")]
    words += ["fd", os.environ.get("MAITRED_READY_FD", "-"), healthy]
    return "200 OK", " ".join(words)


def serve(connection):
    # Whether it was well when it took the connection.
    healthy = "well" if there(f"ready-{slot}") else "unwell"
    with connection:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(4096)
                if not more:
                    return
                head += more
            status, body = page(head.split()[1].decode(), healthy)
            last = b"connection: close" in head.lower()
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"] + ["Connection: close"] * last
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            if last:
                return


def become_ready():
    if "notify" in options:
        wait_for(f"ready-{slot}")
        notify("READY=1")
        # What was said before is heard when this is.
        notify("STATUS=up")
    if "fd" in options:
        wait_for(f"ready-{slot}")
        os.write(int(os.environ["MAITRED_READY_FD"]), b"ready\n")


def feed_watchdog():
    pause = int(os.environ["WATCHDOG_USEC"]) / 1e6 / 10
    while True:
        if not there(f"mute-{slot}"):
            notify("WATCHDOG=1")
        time.sleep(pause)  # the rhythm of a watchdog, which synchronises nothing


def note_term(*_):
    with open(home / f"terms-{slot}", "a") as file:
        file.write(f"TERM {os.getpid()}\n")


def tidy(*_):
    note_term()
    signal.signal(signal.SIGTERM, note_term)
    (home / f"tidying-{slot}").touch()
    wait_for("tidy")
    (home / f"tidied-{slot}").touch()
    os._exit(0)


if "tidy" in options:
    signal.signal(signal.SIGTERM, tidy)
if "deaf" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "watchdog" in options:
    notify("WATCHDOG=1")
if "pipe" in options:
    pipe = socket.socket(socket.AF_UNIX)
    pipe.bind(str(home / f"{os.getpid()}.pipe"))
    pipe.listen()
if "health" in options:
    health = socket.socket(socket.AF_UNIX)
    health.bind(str(home / "health.sock"))
    health.listen()
    wait_for("main")
server = socket.create_server((host, int(port)), backlog=512)
if there("crash"):
    sys.exit("there is a file that says crash")
threading.Thread(target=become_ready, daemon=True).start()
if "self" in options:
    own = socket.create_connection(server.getsockname())
    own.sendall(b"GET /half HTTP/1.1\r\n")
    (home / f"self-{slot}").touch()
if "watchdog" in options:
    threading.Thread(target=feed_watchdog, daemon=True).start()
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
