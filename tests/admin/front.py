"""A maitred with an admin address, clients that ask its server, and a way to wait."""

import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PATIENCE = 30

# Its sleep is the work of a request.
SERVER = """
import http.server, time
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.005); self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server).serve_forever()
"""


def until(what, is_so):
    """Asks until it is so: what is waited for here can only be asked. Returns what is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = is_so()
        if found:
            return found
        if time.monotonic() > deadline:
            sys.exit(f"admin: not within {PATIENCE} s: {what}")
        time.sleep(0.05)


class Front:
    """Runs from its beginning to its end with `with`."""

    def __init__(self, maitred, *options):
        self.directory = tempfile.TemporaryDirectory()
        work = pathlib.Path(self.directory.name)
        self.token = "0123456789abcdef0123456789abcdef"
        (work / "token").write_text(self.token)
        (work / "token").chmod(0o600)
        self.command = [
            maitred, "--name", "shop", "-w", "4", "--share-port-zero", "--log-format", "json", "--control",
            str(work / "control.sock"), "--admin", "127.0.0.1:0", "--admin-token-file", str(work / "token"), *options,
            "--", sys.executable, "-c", SERVER]
        self.lines, self.address, self.admin, self.failed = [], None, None, 0

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        until("all workers serve", lambda: self.admin and self.address and self.ready() == 4)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            if not line.startswith("{"):
                continue
            said = json.loads(line)
            if said["message"].startswith("serving metrics"):
                self.admin = said["address"]
            if said["message"] in ("worker listens", "worker ready"):
                self.address = said["address"].removeprefix("tcp:")

    def get(self, path, **headers):
        request = urllib.request.Request(f"http://{self.admin}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def status(self):
        return json.loads(self.get("/status", Accept="application/json"))

    def ready(self):
        return sum(worker["state"] == "ready" for worker in self.status()["workers"])

    def load(self, stop):
        """Clients that ask until they are told to stop. What fails is counted."""
        def ask():
            while not stop.is_set():
                try:
                    urllib.request.urlopen(f"http://{self.address}/", timeout=PATIENCE).read()
                except OSError:
                    self.failed += 1
        clients = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for client in clients:
            client.start()
        return clients
