"""How to spread disturbances over a run: spread.py CALM BUSY CONNECTIONS TIMES SECONDS

CALM and BUSY are the JSON files of two short runs, the one undisturbed, the other disturbed again and
again without a pause. Prints how many connections to make, which is fewer than wanted when they would
take longer than SECONDS, and the pause before each disturbance.
"""

import json
import sys

calm, busy = (json.load(open(name))["runs"][0] for name in sys.argv[1:3])
connections, times, seconds = map(int, sys.argv[3:6])
# A fifth of the run stays undisturbed, so that the last disturbance ends before the clients do, also when
# they are faster than in the short runs.
USED = 0.8

calm_rate, busy_rate, ran = calm["connections_per_s"], busy["connections_per_s"], busy["commands"]
# One that did not end in the short run took as long as that, at least.
each = ran["took_s"] / ran["times"] if ran["times"] else busy["took_s"]
disturbed = times * each
fit = disturbed * busy_rate + max(seconds - disturbed, 0) * calm_rate
connections = min(connections, int(fit))
pause = max((connections * USED - disturbed * busy_rate) / calm_rate / times, 0.01)
print(
    f"undisturbed {calm_rate:.0f} connections/s, disturbed without a pause {busy_rate:.0f}; a disturbance takes "
    f"{1000 * each:.0f} ms; so {connections} connections and a pause of {1000 * pause:.0f} ms",
    file=sys.stderr,
)
print(connections, f"{1000 * pause:.0f}ms")
