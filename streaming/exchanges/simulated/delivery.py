"""How a product's matches reach the wire: in order and once, unless a fault says otherwise."""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lakehouse.market.time import SECOND_US
from streaming.exchanges.simulated.faults import FaultKind, Faults, Wish
from streaming.exchanges.simulated.frames import wire

_BINARY = b"\x82"


class Delivered(NamedTuple):
    """What goes out in the place of one match: frames, and whether the trade's ticker goes out too."""

    frames: Sequence[bytes]
    ticker: bool


class Effects(NamedTuple):
    """What faults do beyond one product's matches; called while matches are delivered."""

    disconnect: Callable[[], None]
    stall: Callable[[int], None]
    """Takes the exchange's time until which connected clients hear nothing."""


class LateMatches:
    """Matches that wait for their time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, str, bytes]] = []
        self._count = 0

    def add(self, due_us: int, product: str, frame: bytes) -> None:
        """Keep a frame until the exchange's time is `due_us`."""
        self._count += 1
        heapq.heappush(self._waiting, (due_us, self._count, product, frame))

    def due(self, now_us: int) -> list[tuple[str, bytes]]:
        """Take the frames whose time has come, with their products."""
        frames = []
        while self._waiting and self._waiting[0][0] <= now_us:
            _, _, product, frame = heapq.heappop(self._waiting)
            frames.append((product, frame))
        return frames


class Delivery:
    """Applies faults to one product's matches.

    Args:
        product: its name.
        faults: what is wanted, and where it is recorded.
        late: takes the late ones of all products.
        effects: takes what concerns every connection.
    """

    def __init__(self, product: str, faults: Faults, late: LateMatches, effects: Effects) -> None:
        self._product = product
        self._faults = faults
        self._late = late
        self._effects = effects
        self._withheld_to = 0
        self._held_back: list[tuple[int, bytes]] = []

    def deliver(
        self,
        trade_ids: Sequence[int],
        times_us: Sequence[int],
        payloads: Sequence[bytes],
        planned: dict[int, Wish],
    ) -> list[Delivered] | None:
        """Return what goes out for each of consecutive matches, None for all of them as they are.

        Args:
            trade_ids: ascending.
            times_us: when they happened.
            payloads: their messages.
            planned: the faults the plan has, by trade id; may name other trades.
        """
        quiet = self._withheld_to < trade_ids[0] and not self._held_back
        if quiet and not self._faults.has_wishes(self._product):
            first, last = trade_ids[0], trade_ids[-1]
            if not any(first <= trade_id <= last for trade_id in planned):
                return None
        result = []
        for trade_id, time_us, payload in zip(trade_ids, times_us, payloads, strict=True):
            result.append(self._one(trade_id, time_us, payload, planned.get(trade_id)))
        return result

    def _one(self, trade_id: int, at_us: int, payload: bytes, planned: Wish | None) -> Delivered:
        released = [frame for due, frame in self._held_back if due <= trade_id]
        self._held_back = [held for held in self._held_back if held[0] > trade_id]
        if trade_id <= self._withheld_to:
            return Delivered(released, ticker=False)
        wish = self._faults.wished(self._product) or planned
        if wish is None:
            return Delivered([wire(payload), *released], ticker=True)
        last_id = trade_id
        frames = [wire(payload)]
        match wish.kind:
            case FaultKind.GAP | FaultKind.HOLE:
                last_id = self._withheld_to = trade_id + wish.amount - 1
                if wish.kind is FaultKind.HOLE:
                    self._faults.holes[self._product].add_range(trade_id, last_id)
                frames = []
            case FaultKind.DUPLICATE:
                frames *= 1 + wish.amount
            case FaultKind.REORDERING:
                self._held_back.append((trade_id + wish.amount, frames.pop()))
            case FaultKind.LATE:
                self._late.add(at_us + wish.amount * SECOND_US, self._product, frames.pop())
            case FaultKind.MALFORMED:
                frames = [damaged(payload, wish.bits)]
            case FaultKind.STALL:
                self._effects.stall(at_us + wish.amount * SECOND_US)
            case FaultKind.SKEW:
                self._faults.skew_clock(wish, at_us)
            case FaultKind.DISCONNECT:
                self._effects.disconnect()
        self._faults.record(wish, self._product, at_us, trade_id, last_id)
        shown = wish.kind not in (FaultKind.GAP, FaultKind.HOLE)
        return Delivered([*frames, *released], ticker=shown)


def damaged(payload: bytes, bits: int) -> bytes:
    """Return a WebSocket frame with a match that nobody can accept, damaged in one of seven ways."""
    ways: list[Callable[[], bytes]] = [
        lambda: wire(payload[: len(payload) // 2]),
        lambda: wire(_with(payload, b'"price":"', b"NaN")),
        lambda: wire(_with(payload, b'"size":"', b"1e400")),
        lambda: wire(payload.replace(b'"trade_id":', b'"trade_id":-', 1)),
        lambda: wire(_with(payload, b'"time":"', b"1970-01-01T00:00:00.000000Z")),
        lambda: wire(_with(payload, b'"product_id":"', b"../../trades")),
        lambda: _BINARY + wire(payload)[1:],
    ]
    return ways[bits % len(ways)]()


def _with(payload: bytes, field: bytes, value: bytes) -> bytes:
    start = payload.index(field) + len(field)
    return payload[:start] + value + payload[payload.index(b'"', start) :]
