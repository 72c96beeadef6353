"""An ordinary Sanic application."""

import os

from sanic import Sanic, text

app = Sanic("compat")


@app.get("/")
async def index(_request):
    return text(f"served by {os.getpid()}", headers={"Connection": "close"})
