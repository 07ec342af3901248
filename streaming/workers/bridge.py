"""The process of the bridge: looks at the log every few milliseconds and takes what is new to Fluss."""

import sys

from streaming.workers import stage_loop

PAUSE_SECONDS = 0.005
"""Short beside an acknowledgement by three replicas, long beside an empty look at the log."""

if __name__ == "__main__":
    sys.exit(stage_loop.main("bridge", pause_seconds=lambda settings: PAUSE_SECONDS))
