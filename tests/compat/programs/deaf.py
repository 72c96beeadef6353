"""A server that closes its listening socket on /close, or right after it listened when a file exists."""

import os
import signal
import sys

from http_small import answer, listener, path_of

server = listener(int(sys.argv[1]))
closes = os.path.exists(sys.argv[2])
while not closes:
    connection, _ = server.accept()
    closes = path_of(connection) == "/close"
    answer(connection, "closing" if closes else "served", read=False)
server.close()
while True:
    signal.pause()
