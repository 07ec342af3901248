"""What a replay says of itself, on its way and at its end."""

from collections.abc import Callable
from dataclasses import dataclass

from streaming.replay.settings import Replay


@dataclass(frozen=True)
class Progress:
    """How far a replay is."""

    trades: int
    """Of the `total` how many are published."""
    total: int
    event_us: int
    """The event time that it has come to, µs UTC; 0 before its first trade."""
    paused: bool = False


@dataclass(frozen=True)
class Replayed:
    """What a start of a replay came to."""

    replay: Replay
    trades: int
    """All trades of the replay that are in its candles."""
    published: int
    """Those of them that this start published; an earlier one, which was interrupted, did the others."""
    seconds: float
    """How long that took, from reading the archive to the last commit of candles."""
    finished: bool
    """False when it was stopped before its end; the same replay goes on from there."""
    job_ids: tuple[str, ...] = ()
    """The batch jobs of Flink that did it, one for each product."""


OnProgress = Callable[[Progress], None]
