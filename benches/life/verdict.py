"""A line for each run in a directory that benches/life.sh wrote, and whether it is as it should be.

    verdict.py DIR

Of maitred it is asked: every connection accepted has an end that a client saw; nothing is lost, refused or
hung; and nothing fails, unless a worker was killed while it had connections: then no more than there were
clients for each of the killed. Of others nothing is asked. Exit status 1 when it is not so.
"""

import json
import pathlib
import re
import sys

directory = pathlib.Path(sys.argv[1])
KILL = re.compile(r"^\d+ kill \d+$", re.MULTILINE)


def clients(plan):
    arrival = plan["load"]["arrival"]
    return arrival["closed"]["clients"] if "closed" in arrival else plan["load"]["open_max"]


def verdict(run, plan, kills):
    """What is wrong with a run of maitred."""
    ends, front = run["endings"], run["front"]
    broken = ends["failed"] + ends["reset"] + ends.get("unavailable", 0)
    wrong = list(run["invalid"])
    for name in ("refused", "hung"):
        if ends[name]:
            wrong.append(f"{ends[name]} {name}")
    if front["lost"]:
        wrong.append(f"{front['lost']} lost")
    if broken and not kills:
        wrong.append(f"{broken} failed though no worker was killed")
    if broken > kills * clients(plan):
        wrong.append(f"{broken} failed, more than {kills} killed workers can have had of {clients(plan)} clients")
    # The front accepts at once, so what a client began and it did not accept was hung or refused.
    unaccepted = ends["hung"] + ends["refused"]
    ended = ends["answered"] + broken
    if not ended <= front["accepted"] <= ended + unaccepted:
        wrong.append(f"{front['accepted']} accepted, but {ended} ended")
    command = plan.get("disturb")
    if command and command["times"] and run["commands"]["times"] < command["times"]:
        wrong.append(f"disturbed {run['commands']['times']} of {command['times']} times")
    if command and command["times"] and run["commands"]["failed"]:
        wrong.append(f"the disturbance failed {run['commands']['failed']} times: {run['commands']['last_words']}")
    return wrong


files = sorted(directory.glob("*.json"))
if not files:
    sys.exit(f"nothing was measured in {directory}")
bad, totals = 0, {}
row = "{:24} {:>9} {:>9} {:>7} {:>8} {:>6} {:>6} {:>6} {:>8} {:>6} {:>6} {:>9} {:>9} {:>9} {}".format
print(row("run", "per s", "answered", "failed", "refused", "reset", "hung", "lost", "disturb.", "took", "kills", "p99 ms", "p99.9", "max",
          "verdict"))
for file in files:
    report = json.loads(file.read_text())
    log = file.with_suffix(".log")
    kills = len(KILL.findall(log.read_text())) if log.exists() else 0
    # Of many rounds the medians are enough, unless something is wrong.
    for mean in report["summaries"] if report["plan"]["repeat"] > 1 else []:
        rate, micros = mean["connections_per_s"], mean["front_cpu_us"]
        front = f", front {micros['median']:.1f} µs of processor time per connection" if micros else ""
        print(f"{file.stem} {mean['subject']}: {rate['median']:.0f} per s ({rate['min']:.0f} … {rate['max']:.0f}){front}")
    for run in report["runs"]:
        name = file.stem if len(report["runs"]) == 1 else f"{file.stem} {run['subject']} {run['round']}"
        ends, front, ran = run["endings"], run["front"], run["commands"]
        wrong = verdict(run, report["plan"], kills) if front else []
        bad += bool(wrong)
        if report["plan"]["repeat"] > 1 and not wrong:
            continue
        took = f"{ran['took_s'] / ran['times']:.2f}" if ran["times"] else "-"
        said = "; ".join(wrong) or ("as it should be" if front else "")
        figures = [ends[key] for key in ("answered", "failed", "refused", "reset", "hung")]
        print(row(name, f"{run['connections_per_s']:.0f}", *figures, front["lost"] if front else "-", ran["times"], took,
                  kills, *(f"{run['latency_us'][key] / 1000:.2f}" for key in ("p99", "p99_9", "max")), said))
        if log.exists():
            for key, value in [*ends.items(), ("accepted", front["accepted"]), ("lost", front["lost"]), ("kills", kills)]:
                totals[key] = totals.get(key, 0) + value
    if not report["runs"]:
        bad += 1
        print(f"{file.stem}: nothing was measured: {report['ended_early']}")
if totals:
    print("chaos in all:", ", ".join(f"{value} {key}" for key, value in totals.items()))
sys.exit(bool(bad))
