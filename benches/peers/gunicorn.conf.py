"""gunicorn's own workers get a number each; behind maitred they have one already."""

import os

loglevel = "critical"


def post_fork(server, worker):
    os.environ.setdefault("MAITRED_SLOT", str((worker.age - 1) % server.num_workers))
