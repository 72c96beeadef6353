"""An ordinary WSGI and an ordinary ASGI application."""

import os


def wsgi(environ, start_response):
    body = f"slot {os.environ.get('MAITRED_SLOT', '-')}, process {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "http":
        body = f"slot {os.environ.get('MAITRED_SLOT', '-')}, process {os.getpid()}\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})
