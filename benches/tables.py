#!/usr/bin/env python3
"""Writes the tables of figures in README.md and the manual from the raw data in benches/results.

    benches/tables.py           writes them
    benches/tables.py --check   says whether they are what the data give, and exits with 1 if not

A table stands between `<!-- made by benches/tables.py NAME -->` and `<!-- end -->`.
"""

import csv
import io
import pathlib
import re
import statistics
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results"
LAB = "2026-11-21-epyc-2-cores"
PAGES = ["README.md", "src/manual/results.md"]

# Subject in the data, and what a reader calls it.
PEERS = {
    "handoff": "maitred `handoff`",
    "shared": "maitred `shared`",
    "cluster round-robin": "Node `cluster`, round-robin",
    "cluster shared handle": "Node `cluster`, shared handle",
    "PM2 cluster": "PM2, cluster mode",
    "HAProxy TCP": "HAProxy, TCP",
    "nginx stream": "nginx, stream",
    "gunicorn": "gunicorn ×4 (Python)",
    "gunicorn behind maitred": "gunicorn ×1 behind maitred ×4",
}
NODE = list(PEERS)[:7]
KERNEL = {
    "kernel": "epoll server, maitred `kernel`",
    "plain SO_REUSEPORT": "the same, plain `SO_REUSEPORT`",
    "kernel, drawn": "the same, `kernel` without the privilege",
    "handoff": "the same, `handoff`",
    "shared": "the same, `shared`",
}
GO = {
    "kernel": "static Go `net/http`, `kernel`",
    "shared": "the same, `shared`",
    "handoff": "the same, `handoff`",
}


def runs(name):
    """The runs of a measurement that count, by subject."""
    with tarfile.open(RESULTS / LAB / "raw.tar.xz") as raw:
        text = raw.extractfile(f"{name}.csv").read().decode()
    found = {}
    for run in csv.DictReader(io.StringIO(text)):
        if run["valid"] == "true":
            found.setdefault(run["subject"], []).append(run)
    return found


def median(runs_of_one, figure):
    return statistics.median(figure(run) for run in runs_of_one)


def thousands(number):
    return f"{round(number):,}".replace(",", " ")


def rate(all_of_one):
    return thousands(median(all_of_one, lambda run: float(run["connections_per_s"])))


def p99(all_of_one):
    return f"{median(all_of_one, lambda run: float(run['p99_us'])) / 1000:.1f} ms"


def jain(all_of_one):
    return f"{median(all_of_one, lambda run: float(run['jain'])):.4f}"


def apart(all_of_one):
    counts = [[int(count) for count in run["per_worker"].split()] for run in all_of_one]
    return thousands(max(max(run) - min(run) for run in counts))


def per_connection(all_of_one, column):
    figure = median(all_of_one, lambda run: float(run[column] or 0) / int(run["answered"]) * 1e6)
    return f"{figure:.1f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def peers(subjects):
    found = runs("peers")
    head = ["what runs", "connections/s", "p99", "Jain index", "max − min of 60 000", "front, CPU µs per connection"]
    row = lambda name, all_of_one: [
        PEERS[name], rate(all_of_one), p99(all_of_one), jain(all_of_one), apart(all_of_one),
        per_connection(all_of_one, "front_cpu_s"),
    ]
    return table(head, [row(name, found[name]) for name in subjects])


def kernel():
    head = ["what runs", "connections/s", "front, CPU µs per connection", "workers", "max − min of 60 000, widest"]
    row = lambda title, all_of_one: [
        title, rate(all_of_one), per_connection(all_of_one, "front_cpu_s"),
        per_connection(all_of_one, "workers_cpu_s"), apart(all_of_one),
    ]
    rows = [row(title, runs("kernel")[name]) for name, title in KERNEL.items()]
    return table(head, rows + [row(title, runs("go-static")[name]) for name, title in GO.items()])


TABLES = {"peers": lambda: peers(PEERS), "node": lambda: peers(NODE), "kernel": kernel}


def written(text):
    def made(match):
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    pattern = r"(<!-- made by benches/tables\.py (\w+) -->)\n.*?\n(<!-- end -->)"
    return re.sub(pattern, made, text, flags=re.DOTALL)


def main():
    differ = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = written(before)
        if after != before:
            differ.append(page)
            if "--check" not in sys.argv[1:]:
                path.write_text(after)
    if differ and "--check" in sys.argv[1:]:
        sys.exit(f"not what the data give, write them with benches/tables.py: {', '.join(differ)}")


if __name__ == "__main__":
    main()
