"""A program that starts three children, as one that drives browsers does: each listens on port 0 and prints
which port it got. The answer to a request is the three ports."""

import subprocess
import sys

from http_small import listener, serve

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from http_small import listener, serve
server = listener(0)
print(server.getsockname()[1], flush=True)
serve(server, f"child on {server.getsockname()[1]}")
"""

children = [
    subprocess.Popen([sys.executable, "-c", CHILD, sys.path[0]], stdout=subprocess.PIPE, text=True) for _ in range(3)
]
ports = " ".join(child.stdout.readline().strip() for child in children)
serve(listener(int(sys.argv[1])), ports)
