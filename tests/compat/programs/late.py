"""A server that opens another address for a client."""

import sys

from http_small import answer, listener

first, second = (int(port) for port in sys.argv[1:3])
server, opened = listener(first), None
while True:
    connection, _ = server.accept()
    opened = opened or listener(second)
    answer(connection, "opened")
