"""Workers that do what workers should not. Usage: misbehave.py HABIT [ARG]...

They speak the protocol by hand, because no well-kept server does such things.
"""

import os
import signal
import socket
import sys
import threading
import time

habit, arguments = sys.argv[1], sys.argv[2:]
slot = os.environ["MAITRED_SLOT"]


def channel():
    return socket.socket(fileno=os.dup(int(os.environ["MAITRED_CHANNEL"])))


def listen(control, address="tcp:127.0.0.1:0", number=1):
    control.send(f"LISTEN={address}\nID={number}\n".encode())
    while True:
        answer, fds, _, _ = socket.recv_fds(control, 4096, 1)
        if fds and f"ID={number}\n".encode() in answer:
            door = socket.socket(fileno=fds[0])
            break
    control.send(f"ACCEPTING={address}\nID={number}\n".encode())
    return door


def answer(connection):
    connection.recv(4096)
    body = f"slot {slot}, process {os.getpid()}\n"
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    connection.close()


def serve(door, returns=lambda n: False):
    number = 0
    while True:
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
        if not fds:
            return
        number += 1
        if returns(number):
            socket.send_fds(door, [b"no"], fds)
            os.close(fds[0])
        else:
            answer(socket.socket(fileno=fds[0]))


if habit == "exit":
    print("the last words of a worker", file=sys.stderr)
    sys.exit(int(arguments[0]))
elif habit == "never-listen":
    signal.pause()
elif habit == "deaf":  # ignores the request to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(listen(channel()))
elif habit == "garbage":
    control = channel()
    for packet in [b"\xff\xfe\x00", b"hello", b"=", b"LISTEN=", b"LISTEN=tcp:127.0.0.1:0", b"LISTEN=nowhere\nID=1",
                   b"ACCEPTING=tcp:127.0.0.1:1\nID=99", b"CLOSE=x\nID=7", b"ID=1", b"PING=many", b"x" * 4096, b"y" * 60000,
                   b"LISTEN=tcp:127.0.0.4:0\nID=5\nREPLY=1", b"LISTEN=unix:/no/such/dir/s\nID=6", b"\n\n", b"A=B"]:
        control.send(packet)
    socket.send_fds(control, [b"LISTEN=tcp:127.0.0.3:0\nID=8\n"], [0])  # a file as its own socket
    serve(listen(control, number=42))
elif habit == "garbage-back":  # sends on the hand-off socket what is no connection
    door = listen(channel())
    for _ in range(100):
        door.send(b"garbage")
        socket.send_fds(door, [b"x"], [0])
    serve(door)
elif habit == "flood":
    control = channel()
    door = listen(control)

    def flood():
        while True:
            control.send(b"STATUS=busy\xff")

    threading.Thread(target=flood, daemon=True).start()
    serve(door)
elif habit == "escapes":  # everything that it can say, with what acts on a terminal in it
    control = channel()
    acts = "\x1b[31m\x9b32m\u202e\r\x07"
    print(f"own words {acts}", file=sys.stderr, flush=True)
    if arguments:
        sys.exit(1)
    control.send(f"STATUS=says {acts}".encode())
    control.send(f"nonsense {acts}".encode())
    control.send(f"LISTEN=unix:/no/such/{acts}/socket\nID=7\n".encode())
    control.recv(4096)
    serve(listen(control, f"unix:@{os.getpid()}{acts}"))
elif habit == "refused":  # asks for what it cannot have, again and again
    control = channel()
    for number in range(int(arguments[0])):
        control.send(f"LISTEN=unix:/no/such/{number}\nID={number}\n".encode())
        control.recv(4096)
    serve(listen(control))
elif habit == "cycle":  # opens an address and closes it, again and again
    control = channel()
    door = listen(control)
    for number in range(int(arguments[0])):
        address = f"unix:@{os.getpid()}-{number}"
        control.send(f"LISTEN={address}\nID=7\n".encode())
        while True:
            answered, fds, _, _ = socket.recv_fds(control, 4096, 1)
            if b"ID=7\n" in answered:
                break
        for fd in fds:
            os.close(fd)
        control.send(f"CLOSE={address}\nID=7\n".encode())
    serve(door)
elif habit == "chatter":  # says much, and then serves
    control = channel()
    for number in range(int(arguments[0])):
        control.send(f"STATUS={number}".encode())
    serve(listen(control))
elif habit == "return":  # slot 0 returns everything
    serve(listen(channel()), returns=lambda n: slot == "0")
elif habit == "return-half":  # everybody returns every second one
    serve(listen(channel()), returns=lambda n: n % 2 == 0)
elif habit == "many":  # asks for more addresses than anybody needs
    control = channel()
    refused = 0
    for number in range(300):
        control.send(f"LISTEN=tcp:127.0.0.1:0\nID={number}\n".encode())
        text, fds, _, _ = socket.recv_fds(control, 4096, 1)
        refused += b"ERROR=24" in text
        for fd in fds:
            os.close(fd)
    control.send(f"STATUS=refused {refused}\nREADY=1".encode())
    signal.pause()
elif habit == "orphans":  # leaves children of children behind
    for _ in range(20):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.01)  # outlives its parent; no synchronisation
            os._exit(0)
        os.wait()
    serve(listen(channel()))
elif habit == "busy":  # never returns from a loop, and its child neither
    control = channel()
    door = listen(control)
    os.fork()
    while True:
        pass
elif habit == "crash-after":  # serves so many and dies
    door = listen(channel())
    for _ in range(int(arguments[0])):
        _, fds, _, _ = socket.recv_fds(door, 128, 1)
        answer(socket.socket(fileno=fds[0]))
    os.kill(os.getpid(), signal.SIGKILL)
else:
    sys.exit(f"unknown habit {habit}")
