import os

from emmett import App

app = App(__name__)


@app.route("/")
async def slot():
    return f"slot {os.environ['MAITRED_SLOT']}\n"
