"""What a replay is: its settings, and the names that follow from them."""

import hashlib
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES

TAG: Final = "replay."
"""Begins the tag of a snapshot of `trades` that a replay pins; the replay's id follows."""

STATE: Final = "lakehouse.replay."
"""Begins the property in which a replay that goes on, or was killed, keeps its state; its id follows."""


class ReplayError(Exception):
    """A replay can't be run as asked; the text says why and what to do."""


@dataclass(frozen=True)
class Replay:
    """One replay; its settings are all there is to it, so that the same ones name the same replay.

    `speed` is how many seconds of the exchange's time pass in one of ours, None for as fast as possible.
    """

    day: date
    products: tuple[str, ...]
    speed: float | None
    snapshot_id: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "products", tuple(sorted(map(checked_product, self.products))))

    @cached_property
    def _digest(self) -> bytes:
        settings = f"{self.day.isoformat()} {self.pace} {','.join(self.products)} {self.snapshot_id}"
        return hashlib.sha256(settings.encode()).digest()

    @property
    def pace(self) -> str:
        """The speed in words."""
        return "max" if self.speed is None else f"{self.speed:g}x"

    @property
    def id(self) -> str:
        """Its name in the table, such as `2026-11-20.60x.5f3a9c1e07d2`."""
        return f"{self.day.isoformat()}.{self.pace}.{self._digest.hex()[:12]}"

    @property
    def number(self) -> int:
        """Its name in messages, 64 bits."""
        return int.from_bytes(self._digest[:8], "little")

    @property
    def tag(self) -> str:
        """The tag that pins its snapshot."""
        return TAG + self.id

    @property
    def state(self) -> str:
        """The property that holds its state."""
        return STATE + self.id


def parsed_speed(text: str) -> float | None:
    """Return the speed that a person wrote: a number, or max for as fast as possible.

    Raises:
        ReplayError: it is neither.
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= 1e6:
        raise ReplayError(
            f"{text[:20]!r} is no speed: write max, or how many times the exchange's, such as 60"
        )
    return speed


def interrupted(candles: PaimonStore) -> set[str]:
    """Return the ids of the replays that have a state: those that run, and those that were killed."""
    newest = candles.newest(REPLAY_CANDLES_1M)
    properties = (newest.properties if newest else None) or {}
    return {name.removeprefix(STATE) for name in properties if name.startswith(STATE)}


def archived_products(archive: IcebergStore, day: date, snapshot_id: int | None) -> tuple[str, ...]:
    """Return the products that have trades on a day, in a snapshot or in the current one.

    Raises:
        ReplayError: none has.
        SnapshotGoneError: the snapshot has expired.
    """
    there = archive.partitions(TRADES, snapshot_id=snapshot_id)
    found = tuple(stats.product for stats in there if stats.day == day and stats.product is not None)
    if not found:
        raise ReplayError(
            f'no trade of {day.isoformat()} is archived: `lakehouse sql "SELECT DISTINCT day FROM trades"` '
            "shows the days that can be replayed"
        )
    return found


def chosen(
    archive: IcebergStore,
    candles: PaimonStore,
    day: date,
    products: tuple[str, ...],
    speed: float | None,
    snapshot_id: int | None,
) -> Replay:
    """Return the replay of these settings: one that was interrupted goes on, with the snapshot it pinned.

    Args:
        archive: where its trades are.
        candles: where its candles are to be.
        day: UTC day.
        products: whose trades.
        speed: see `Replay`.
        snapshot_id: the snapshot of `trades` to read; where None, that of an interrupted replay of the same
            day, products and speed, else the current one.

    Raises:
        ReplayError: nothing was ever archived.
        InvalidProductError: a product is not one.
    """
    if snapshot_id is None:
        states = interrupted(candles)
        for tag, tagged in archive.tags(TRADES).items() if states else ():
            before = Replay(day, products, speed, tagged)
            if before.tag == tag and before.id in states:
                return before
        snapshot_id = archive.snapshot_id(TRADES)
    if snapshot_id is None:
        raise ReplayError("nothing is archived yet: start `lakehouse up` first")
    return Replay(day, products, speed, snapshot_id)
