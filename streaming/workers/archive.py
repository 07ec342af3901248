"""The process of the archive stage; it also lets the log drop its old messages."""

import sys

from streaming.workers import stage_loop

if __name__ == "__main__":
    sys.exit(
        stage_loop.main(
            "archive", pause_seconds=lambda settings: settings.commit_interval_ms / 1000, retains=True
        )
    )
