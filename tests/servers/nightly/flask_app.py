import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def slot():
    return f"slot {os.environ['MAITRED_SLOT']}\n"
