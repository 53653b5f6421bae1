#!/usr/bin/env python3
"""Maps a file, reads a byte of each cache line of it, and prints how long that took and their sum, as JSON.

    map_file.py FILE
"""

import json
import mmap
import sys
import time

LINE_BYTES = 64

with open(sys.argv[1], "rb") as file:
    began = time.perf_counter()
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        # One loop in C over the mapping; what is summed is a copy, and not timed.
        seen = mapped[::LINE_BYTES]
        seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "count": 1, "bytes": len(seen) * LINE_BYTES, "sum": sum(seen)}))
