"""Which share of the clients' addresses is with another slot: moved.py FILE SUBJECT SUBJECT

FILE is a JSON file of `maitred bench --sources`; the first runs of the two subjects are compared, addresses
that both have seen.
"""

import json
import sys


def slots(runs, subject):
    return next(run for run in runs if run["subject"] == subject)["sources"]["slot_of_source"]


def moved(path, one, other):
    """How many addresses both have seen, and how many of them are with another slot."""
    runs = json.load(open(path))["runs"]
    before, after = slots(runs, one), slots(runs, other)
    known = before.keys() & after.keys()
    return len(known), sum(before[source] != after[source] for source in known)


if __name__ == "__main__":
    known, elsewhere = moved(*sys.argv[1:])
    print(f"{sys.argv[2]} → {sys.argv[3]}: {elsewhere} of {known} addresses moved, {100 * elsewhere / known:.1f} %")
