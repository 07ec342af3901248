"""What the keeper of the streaming job reports to Prometheus, each time it has looked."""

import math
from typing import Final

from prometheus_client import Counter, Gauge

RUNNING: Final = Gauge("lakehouse_flink_running", "1 while the streaming job runs, 0 while it is down.")
STATE: Final = Gauge("lakehouse_flink_state", "1 for the state the streaming job is in.", ["state"])
RESTARTS: Final = Gauge("lakehouse_flink_restarts", "Restarts of the job since the JobManager started.")
CIRCLING: Final = Gauge("lakehouse_flink_circling", "1 while the streaming job restarts again and again.")
FAILURE: Final = Gauge(
    "lakehouse_flink_failure",
    "1 for the root cause of what keeps the streaming job from running; without a cause while it runs.",
    ["cause"],
)
CHECKPOINT_AGE_SECONDS: Final = Gauge(
    "lakehouse_flink_checkpoint_age_seconds",
    "Time since the last checkpoint, which is the last commit to the tables; NaN before the first.",
)
CHECKPOINT_AGE_SECONDS.set(math.nan)
CHECKPOINT_SECONDS: Final = Gauge("lakehouse_flink_checkpoint_duration_seconds", "How long it took.")
CHECKPOINTS_FAILED: Final = Gauge("lakehouse_flink_checkpoints_failed", "Checkpoints that came to nothing.")
STATE_BYTES: Final = Gauge("lakehouse_flink_state_bytes", "Size of the job's state in the last checkpoint.")
LAG_ROWS: Final = Gauge(
    "lakehouse_flink_lag_rows", "Rows in Fluss that the streaming job has not read yet.", ["table"]
)
ERRORS: Final = Counter("lakehouse_flink_errors", "Looks at the streaming job that failed and are repeated.")
