"""Gives up root and asks for addresses: lesser.py sockets|channel UID ADDRESS... Says for each how it went
(`asked ADDRESS: ERRNO`, 0 for success). An address is a port or the path of a Unix socket."""

import errno
import os
import re
import signal
import socket
import sys

how, uid, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
channel = os.environ["MAITRED_CHANNEL"]
if uid != os.getuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
kept = []


def ask_with_socket(address):
    if address.startswith("/"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(address)
    else:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(address)))
    server.listen()
    kept.append(server)


def ask_on_channel(address, number):
    master = socket.socket(fileno=os.dup(int(channel)))
    kept.append(master)
    name = f"unix:{address}" if address.startswith("/") else f"tcp:127.0.0.1:{address}"
    master.send(f"LISTEN={name}\nID={number}\n".encode())
    while True:
        answer = master.recv(4096).decode()
        refused = re.search(r"^ERROR=(\d+)$", answer, re.M)
        if refused:
            raise OSError(int(refused[1]), "refused")
        if "LISTENING=" in answer:
            return


for number, address in enumerate(addresses, 1):
    try:
        ask_with_socket(address) if how == "sockets" else ask_on_channel(address, number)
        result = 0
    except OSError as error:
        result = error.errno
    print(f"asked {address}: {result}", flush=True)
print("asked all", flush=True)
signal.pause()
