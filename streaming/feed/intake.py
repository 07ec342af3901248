"""Counting inputs: at the door, and at the three exits."""

from dataclasses import dataclass

import msgspec

from lakehouse.market.intake import IntakeCount
from lakehouse.market.time import DAY_US, day_of
from lakehouse.market.trade import Exchange
from streaming.feed.outbox import Outbox
from streaming.spine.topics import INTAKE


@dataclass
class FeedTotals:
    """What became of all inputs of a run, and the gaps found in it."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    quarantined: int = 0
    gaps: int = 0

    @property
    def unaccounted(self) -> int:
        """Inputs that came in and have no end: 0, or there is a mistake in the feed."""
        return self.received - self.accepted - self.duplicates - self.quarantined


class Tally:
    """The counts of one product, day and kind since the last publication."""

    __slots__ = ("accepted", "duplicates", "late", "quarantined", "received")

    def __init__(self) -> None:
        self.received = 0
        self.accepted = 0
        self.duplicates = 0
        self.quarantined = 0
        self.late = 0


class Intake:
    """All counts. Whoever holds a `Tally` must ask for it again after `publish`."""

    def __init__(self, exchange: Exchange, outbox: Outbox) -> None:
        self._exchange = exchange
        self._outbox = outbox
        self._tallies: dict[tuple[str, int, str], Tally] = {}
        self._published = FeedTotals()
        self.at_the_door = 0
        """Inputs that came in, counted before anything is known of them."""
        self.by_kind: dict[tuple[str, str], int] = {}
        """Published counts by kind and by received, accepted, duplicates."""

    def tally(self, product: str, day: int, kind: str) -> Tally:
        """Return the counts of a product, a day (days since 1970) and a kind."""
        key = (product, day, kind)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        return tally

    def totals(self) -> FeedTotals:
        """Return the sums until now; `gaps` is left at 0."""
        totals = FeedTotals(
            self.at_the_door,
            self._published.accepted,
            self._published.duplicates,
            self._published.quarantined,
        )
        for tally in self._tallies.values():
            totals.accepted += tally.accepted
            totals.duplicates += tally.duplicates
            totals.quarantined += tally.quarantined
        return totals

    def publish(self) -> None:
        """Put the counts since the last call into the outbox."""
        for (product, day, kind), tally in self._tallies.items():
            if not tally.received:
                continue
            count = IntakeCount(
                self._exchange,
                product,
                day_of(day * DAY_US),
                kind,
                tally.received,
                tally.accepted,
                tally.duplicates,
                tally.quarantined,
                tally.late,
            )
            self._outbox.sink(INTAKE, product)(msgspec.msgpack.encode(count))
            self._published.accepted += tally.accepted
            self._published.duplicates += tally.duplicates
            self._published.quarantined += tally.quarantined
            for name in ("received", "accepted", "duplicates"):
                by_kind = (kind, name)
                self.by_kind[by_kind] = self.by_kind.get(by_kind, 0) + getattr(tally, name)
        self._tallies.clear()

    def discard(self) -> None:
        """Drop the counts since the last publication and call all of those inputs duplicates."""
        self.add_duplicates(sum(tally.received for tally in self._tallies.values()))
        self._tallies.clear()

    def add_duplicates(self, inputs: int) -> None:
        """Count inputs as duplicates without a row: an earlier run counted them."""
        self._published.duplicates += inputs
