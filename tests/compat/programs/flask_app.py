"""An ordinary Flask application."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return f"served by {os.getpid()}"
