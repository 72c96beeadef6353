"""A server whose child serves the next port. /kill kills the child, /again forks another."""

import os
import signal
import sys

from http_small import answer, listener, path_of, serve

port = int(sys.argv[1])
server = listener(port)


def begin():
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        server.close()
        own = listener(port + 1)
        os.write(told, b"x")
        serve(own, "the child")
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    return child


child = begin()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    connection, _ = server.accept()
    path = path_of(connection)
    said = "nothing to do"
    if path == "/kill" and child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        child, said = None, "killed"
    if path == "/again" and not child:
        child, said = begin(), "begun"
    answer(connection, said, read=False)
