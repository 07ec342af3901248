"""What the bridge reports to Prometheus besides what every stage does."""

from typing import Final

from prometheus_client import Counter, Gauge

ACKNOWLEDGED: Final = Counter(
    "lakehouse_bridge_acknowledged_rows", "Rows that Fluss acknowledged, repeated ones too.", ["table"]
)
IN_FLIGHT: Final = Gauge("lakehouse_bridge_in_flight_rows", "Rows handed to Fluss and not acknowledged yet.")
TIMEOUTS: Final = Counter("lakehouse_bridge_timeouts", "Acknowledgements that did not come in time.")
RECONNECTS: Final = Counter("lakehouse_bridge_reconnects", "Connections made in place of one that failed.")
SHORTER: Final = Counter(
    "lakehouse_bridge_shorter_logs",
    "Times that the logs of Fluss ended before rows that it had acknowledged; those were pushed again.",
)
COMPARISONS: Final = Counter(
    "lakehouse_bridge_comparisons", "Comparisons of the archive with the log that were made."
)
MISSING: Final = Gauge(
    "lakehouse_bridge_missing_messages",
    "Messages of the log that Flink passed by: they are missing in the archive.",
    ["topic"],
)
REPUSHED: Final = Counter(
    "lakehouse_bridge_repushed_messages", "Messages pushed again because the archive lacked them.", ["topic"]
)
