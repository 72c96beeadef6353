"""A parent that binds and listens, forks two children that accept, and closes its own copy."""

import os
import signal
import sys

from http_small import listener, serve

server = listener(int(sys.argv[1]))
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        serve(server, "as it was asked")
    children.append(child)
server.close()


def end(*_):
    for child in children:
        os.kill(child, signal.SIGTERM)
    for child in children:
        os.waitpid(child, 0)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
while True:
    signal.pause()
