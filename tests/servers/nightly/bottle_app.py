import os
import sys

import bottle


@bottle.get("/")
def slot():
    return f"slot {os.environ['MAITRED_SLOT']}\n"


bottle.run(host="127.0.0.1", port=int(sys.argv[1]), quiet=True)
