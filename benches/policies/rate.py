"""What a subject serves, times a factor, as a whole number: rate.py FILE SUBJECT FACTOR

FILE is the JSON file of a closed loop; the median of its runs counts.
"""

import json
import statistics
import sys

runs = json.load(open(sys.argv[1]))["runs"]
rates = [run["connections_per_s"] for run in runs if run["subject"] == sys.argv[2]]
print(round(statistics.median(rates) * float(sys.argv[3])))
