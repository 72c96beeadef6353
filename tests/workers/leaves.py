"""A server that leaves others behind, or goes away from where it was. Usage: leaves.py ADDRESS HABIT...

Each process that is left writes `NAME PID` to the file that LEFT names, and sleeps or serves.
"""

import os
import signal
import socket
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
habits = sys.argv[2:]


def note(name):
    with open(os.environ["LEFT"], "a") as file:
        file.write(f"{name} {os.getpid()}\n")


def child(name, *, session=False, group=False, deaf=False):
    """Forks one that sleeps; returns when it has noted itself."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        if session:
            os.setsid()
        if group:
            os.setpgid(0, 0)
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(name)
        os.close(write)
        while True:
            time.sleep(1000)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    return pid


def server():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(100)
    return listener


def serve(listener):
    slot = os.environ.get("MAITRED_SLOT", "-")
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            continue  # as careless as can be: it spins if accept goes on failing
        body = f"slot {slot}, process {os.getpid()}\n"
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        connection.close()


if "setsid-job" in habits:  # detached on purpose: none of our sockets
    child("setsid-job", session=True)
if "group-job" in habits:  # another group in the same session
    child("group-job", group=True)
if "own-group" in habits:  # leaves the group that bears its number
    os.setpgid(0, child("other", group=True))
listener = server()
if "setsid-holder" in habits:  # has the listener, in a session of its own
    child("setsid-holder", session=True)
if "deaf-holder" in habits:
    child("deaf-holder", session=True, deaf=True)
if "forget" in habits:  # nothing of our environment is left in it
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            note("forgetful")
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.wait()
if "respawn" in habits:  # a child in a session of its own that serves, and starts another when that one ends
    if os.fork() == 0:
        os.setsid()
        note("parent")
        while True:
            if os.fork() == 0:
                note("serving")
                serve(listener)
            os.wait()
if "background" in habits:  # as daemon(3) does
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.setsid()
    note("daemon")
    os.close(write)
note("server")
serve(listener)
