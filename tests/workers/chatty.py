"""An HTTP server that writes the path of each request to its standard output and error. It knows nothing of maitred.

    chatty.py PORT
"""

import http.server
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("out", self.path, flush=True)
        print("err", self.path, file=sys.stderr, flush=True)
        body = f"{os.getpid()} {os.environ.get('GREETING', '-')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


if sys.argv[1] == "fails":
    sys.exit("the database is away")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
