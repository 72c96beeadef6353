"""An ordinary WSGI application that tells in a header which worker it is.

    gunicorn --chdir benches/peers -c benches/peers/gunicorn.conf.py wsgi:app
"""

import os


def app(environ, start_response):
    slot = os.environ.get("MAITRED_SLOT", "0")
    body = f"slot {slot}, process {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Maitred-Slot", slot)])
    return [body]
