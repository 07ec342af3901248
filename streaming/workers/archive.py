"""The process of the archive stage; it also lets the log drop its old messages."""

import os
import sys

from streaming.workers import stage_loop

NICENESS = 5
"""Gives way to the feed and the hot stage: commits have seconds, those have milliseconds."""

if __name__ == "__main__":
    os.nice(NICENESS)
    sys.exit(
        stage_loop.main(
            "archive", pause_seconds=lambda settings: settings.commit_interval_ms / 1000, retains=True
        )
    )
