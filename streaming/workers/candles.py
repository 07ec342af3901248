"""The process of the candles stage."""

import sys

from streaming.workers import stage_loop

if __name__ == "__main__":
    sys.exit(stage_loop.main("candles", pause_seconds=lambda settings: settings.commit_interval_ms / 1000))
