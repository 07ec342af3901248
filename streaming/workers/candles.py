"""The process of the candles stage."""

import os
import sys

from streaming.workers import stage_loop

NICENESS = 5
"""Gives way to the feed and the hot stage: commits have seconds, those have milliseconds."""

if __name__ == "__main__":
    os.nice(NICENESS)
    sys.exit(stage_loop.main("candles", pause_seconds=lambda settings: settings.commit_interval_ms / 1000))
