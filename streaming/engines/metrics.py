"""What every engine reports to Prometheus."""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lakehouse.market.time import SECOND_US, now_us
from streaming.spine.contract import Partition

MESSAGES: Final = Counter(
    "lakehouse_engine_messages", "Messages of the log taken in and committed.", ["stage", "topic"]
)
COMMIT_SECONDS: Final = Histogram(
    "lakehouse_engine_commit_duration_seconds",
    "Time to make rows of what was read and to commit them.",
    ["stage", "table"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
DUPLICATES: Final = Counter(
    "lakehouse_engine_duplicates", "Trades that were there already and changed nothing.", ["stage"]
)
TOO_LATE: Final = Counter(
    "lakehouse_engine_too_late",
    "Trades that came after the lateness horizon: in the archive, not in the live candles.",
    ["stage"],
)
ERRORS: Final = Counter("lakehouse_engine_errors", "Steps that failed and were tried again.", ["stage"])


class Watched(Protocol):
    """What can be asked how far it is."""

    @property
    def name(self) -> str:
        """The stage's name."""
        ...

    def lag(self) -> dict[Partition, int]:
        """Return how many messages of each partition are not committed yet."""
        ...

    def newest_us(self) -> Mapping[str, int]:
        """Return the time of each product's newest committed trade, µs UTC."""
        ...


class Progress(Collector):
    """Lag and freshness as they are when Prometheus asks, also while the stage hangs in a step."""

    def __init__(self, stage: Watched) -> None:
        self._stage = stage

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics without values, so that registering asks the stage nothing."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics as they are now."""
        lag, freshness = self._families()
        for partition, messages in self._stage.lag().items():
            lag.add_metric([self._stage.name, partition.topic, str(partition.number)], messages)
        now = now_us()
        for product, newest_us in self._stage.newest_us().items():
            freshness.add_metric([self._stage.name, product], (now - newest_us) / SECOND_US)
        yield lag
        yield freshness

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "lakehouse_engine_lag_messages",
                "Messages in the log that the stage has not committed yet.",
                labels=["stage", "topic", "partition"],
            ),
            GaugeMetricFamily(
                "lakehouse_engine_freshness_seconds",
                "Age of the newest committed trade, by the trade's own time.",
                labels=["stage", "product"],
            ),
        )
