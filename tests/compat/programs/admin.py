"""A server with two addresses: `public` on a port, `admin` on the next one that is free."""

import errno
import sys
import threading

from http_small import listener, serve

port = int(sys.argv[1])
public = listener(port)
threading.Thread(target=serve, args=(public, "public"), daemon=True).start()
while True:
    try:
        admin = listener(port)
        break
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        port += 1
serve(admin, "admin")
