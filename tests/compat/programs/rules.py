"""Tries what the kernel allows two sockets of one program, and writes every result to a file.

    rules.py MAIN|- PORT FILE        with MAIN it listens there at the end
"""

import errno
import itertools
import os
import signal
import socket
import sys

from http_small import listener, serve

main, port, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]

# Family, address, and whether it takes IPv6 only.
PLACES = {
    "0.0.0.0": (socket.AF_INET, "0.0.0.0", None),
    "127.0.0.1": (socket.AF_INET, "127.0.0.1", None),
    "::": (socket.AF_INET6, "::", 0),
    "::only": (socket.AF_INET6, "::", 1),
    "::1": (socket.AF_INET6, "::1", 0),
}
SHARING = ["plain", "address", "port", "both"]
# a and b are the sockets; B binds, L listens, C closes.
SEQUENCES = ["aB bB", "aB aL bB bL", "aB bB aL bL", "aB bB bL aL", "aB aL aC bB bL", "aB aC bB bL", "aB aB", "aB aL aL aB"]


def make(place, sharing):
    family, _, only = PLACES[place]
    made = socket.socket(family)
    if only is not None:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    if sharing in ("address", "both"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sharing in ("port", "both"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def step(sockets, places, what):
    which, does = what
    try:
        if does == "B":
            sockets[which].bind((PLACES[places[which]][1], port))
        elif does == "L":
            sockets[which].listen(8)
        else:
            sockets[which].close()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]


def in_child(work):
    """What a forked child finds; its sockets are gone when this returns."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, work().encode())
        os._exit(0)
    os.close(write)
    found = b""
    while piece := os.read(read, 4096):
        found += piece
    os.close(read)
    os.waitpid(child, 0)
    return found.decode()


def pairs():
    yield from itertools.product(itertools.product(PLACES, SHARING), repeat=2)


with open(file + ".part", "w") as out:
    for number, (one, other) in enumerate(pairs()):
        # One sequence for each pair; the pairs beside it have the others.
        for sequence in SEQUENCES[number % len(SEQUENCES) :][:1]:
            sockets = {"a": make(*one), "b": make(*other)}
            places = {"a": one[0], "b": other[0]}
            results = [step(sockets, places, what) for what in sequence.split()]
            for made in sockets.values():
                made.close()
            out.write(f"{'/'.join(one)} {'/'.join(other)} {sequence}: {' '.join(results)}\n")
    for one, other in itertools.islice(pairs(), 0, None, 7):
        # A child binds and listens where its parent does.
        sockets = {"a": make(*one), "b": make(*other)}
        places = {"a": one[0], "b": other[0]}
        results = [step(sockets, places, what) for what in ("aB", "aL")]
        results.append(in_child(lambda: " ".join(step(sockets, places, what) for what in ("bB", "bL"))))
        # The child is gone, and its socket; the parent's copy of that was never bound.
        for made in sockets.values():
            made.close()
        out.write(f"{'/'.join(one)} {'/'.join(other)} child: {' '.join(results)}\n")
    for one in itertools.product(PLACES, SHARING):
        # A child that ended leaves the address to its parent.
        left = in_child(lambda: " ".join(step({"a": made}, {"a": one[0]}, w) for made in [make(*one)] for w in ("aB", "aL")))
        made = make(*one)
        results = [step({"a": made}, {"a": one[0]}, what) for what in ("aB", "aL")]
        made.close()
        out.write(f"{'/'.join(one)} after a child: {left} {' '.join(results)}\n")

os.rename(file + ".part", file)

if main != "-":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve(listener(int(main)), "done")
