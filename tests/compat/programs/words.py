"""Answers with the words that it was started with."""

import os
import sys

from http_small import listener, serve

serve(listener(int(sys.argv[1])), " ".join(sys.argv[2:] + [os.environ["OWN"]]))
