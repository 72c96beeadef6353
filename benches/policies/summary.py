"""The tables of what benches/policies.sh measured, in Markdown: summary.py DIR

Medians of the runs that count; what is missing in DIR is left out.
"""

import json
import pathlib
import sys

from moved import moved

directory = pathlib.Path(sys.argv[1])


def report(name):
    path = directory / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def time(us):
    return f"{us} µs" if us < 1000 else f"{us / 1000:.2f} ms" if us < 10_000 else f"{us / 1000:.0f} ms"


def whole(number):
    return f"{number:,.0f}".replace(",", " ")


def optional(value, form):
    return "–" if value is None else form(value)


def cpu(summary):
    return optional(summary["front_cpu_us"], lambda us: f"{us['median']:.1f}")


RATE = ("connections/s", lambda s: whole(s["connections_per_s"]["median"]))
RANGE = ("min … max", lambda s: f"{whole(s['connections_per_s']['min'])} … {whole(s['connections_per_s']['max'])}")
RATIO = ("ratio to the first", lambda s: optional(s["ratio"], lambda ratio: f"{ratio['median']:.3f}"))
LATENCY = [(name, lambda s, key=key: time(s["latency_us"][key])) for name, key in
           (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9"))]
CPU = ("front, CPU µs per connection", cpu)
SPREAD = ("max − min, widest", lambda s: optional(s["widest"], whole))
OPEN = [
    ("open", lambda s: optional(s["open"], lambda o: f"{o['mean']:.0f}")),
    ("standard deviation over the workers", lambda s: optional(s["open"], lambda o: f"{o['sd']:.2f}")),
    ("by chance", lambda s: optional(s["open"], lambda o: f"{o['sd_by_chance']:.2f}")),
    ("max/mean", lambda s: optional(s["open"], lambda o: f"{o['max_over_mean']:.2f}")),
    ("Jain index", lambda s: optional(s["open"], lambda o: f"{o['jain']:.4f}")),
]
SOURCES = [(name, lambda s, key=key: str(s["sources"][key])) for name, key in
           (("addresses", "answered"), ("with more than one slot", "mixed"), ("connections astray", "astray"),
            ("moved from round to round", "moved"))]
ENDINGS = [(name, lambda s, key=key: whole(s["endings"][key])) for name, key in
           (("served", "answered"), ("reset", "reset"), ("503", "unavailable"), ("hung", "hung"),
            ("failed", "failed"))]
TURNED_AWAY = ("turned away by the front", lambda s: optional(s["front"], lambda front: whole(front["refused"])))

TABLES = [
    ("open", "Connections that stay", OPEN),
    ("slow", "One worker twenty times slower, 64 clients", [RATE, *LATENCY]),
    ("costly", "Costly requests, 64 clients", [RATE, *LATENCY]),
    ("costly-open", "Costly requests, open loop at 70 % of what round-robin serves", [RATE, *LATENCY]),
    ("sources", "Addresses and slots", SOURCES),
    ("depth-cheap", "Depth: cheap requests", [RATE, RANGE, SPREAD, LATENCY[1], CPU]),
    ("depth-costly", "Depth: costly requests", [RATE, *LATENCY]),
    ("depth-slow", "Depth: one slow worker", [RATE, *LATENCY]),
    ("rate", "What a policy costs", [RATE, RANGE, RATIO, CPU, SPREAD]),
    ("capacity", "What can be served, requests of 1 ms", [RATE, RANGE, *LATENCY]),
    ("overload-80", "Four fifths of that, open loop", [RATE, *ENDINGS, TURNED_AWAY, *LATENCY]),
    ("overload-200", "Twice of that, open loop", [RATE, *ENDINGS, TURNED_AWAY, *LATENCY]),
]

for name, title, columns in TABLES:
    data = report(name)
    if not data:
        continue
    print(f"### {title} (`{name}`)\n")
    print("| what runs |", " | ".join(column for column, _ in columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for summary in data["summaries"]:
        print(f"| {summary['subject']} |", " | ".join(cell(summary) for _, cell in columns), "|")
    print()
    if name == "sources":
        known, elsewhere = moved(directory / "sources.json", "source-hash, 8", "source-hash, 9")
        print(f"From 8 to 9 workers {elsewhere} of {known} addresses moved, {100 * elsewhere / known:.1f} %; "
              f"a ninth would be {100 / 9:.1f} %.\n")
    for run in data["runs"]:
        for why in run["invalid"]:
            print(f"- INVALID, {run['subject']}, round {run['round']}: {why}")
    machine = [doubt for doubt in data["doubts"] if doubt.startswith(("noisy", "client saturated"))]
    for doubt in machine:
        print(f"- doubt: {doubt}")
    print()
