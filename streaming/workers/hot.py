"""The process of the hot stage: looks at the log every few milliseconds."""

import sys

from streaming.workers import stage_loop

PAUSE_SECONDS = 0.004
"""Short beside the 50 ms within which a trade has to be readable, long beside an empty look at the log."""

if __name__ == "__main__":
    sys.exit(stage_loop.main("hot", pause_seconds=lambda settings: PAUSE_SECONDS))
