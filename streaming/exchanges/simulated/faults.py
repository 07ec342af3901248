"""Which faults there are, which are wanted and when, and the record of those that were injected.

Faults come from a seeded plan (a chance for each match message, so the same trades always suffer the
same) or by request. What a fault does to messages is in `delivery`.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np

from lakehouse.market.trade_ids import TradeIds
from streaming.exchanges.simulated.noise import Ints, below, hashed, key

MOST_RECORDED = 500_000
"""The record keeps this many injections, the latest."""


class FaultKind(StrEnum):
    """A way to break; in brackets what its amount counts."""

    DISCONNECT = "disconnect"
    """Every client's connection is cut."""
    GAP = "gap"
    """Matches are never sent; REST has them (trades)."""
    DUPLICATE = "duplicate"
    """A match is sent again (additional copies)."""
    REORDERING = "reordering"
    """A match is sent after later ones (trades it waits for)."""
    LATE = "late"
    """A match is sent long after it happened (exchange seconds)."""
    MALFORMED = "malformed"
    """A match's message is damaged so that it can't be read; REST has the trade."""
    STALL = "stall"
    """Connected clients hear nothing, then everything at once (exchange seconds)."""
    SKEW = "skew"
    """The exchange's clock is wrong: tickers, heartbeats and /time (exchange seconds it lasts)."""
    TOO_MANY_REQUESTS = "429"
    """REST refuses (requests)."""
    HOLE = "hole"
    """Like a gap, and REST doesn't have the trades either. By request only (trades)."""


_AMOUNTS: Mapping[FaultKind, tuple[int, int]] = {
    FaultKind.DISCONNECT: (1, 1),
    FaultKind.GAP: (1, 20),
    FaultKind.DUPLICATE: (1, 2),
    FaultKind.REORDERING: (1, 5),
    FaultKind.LATE: (5, 180),
    FaultKind.MALFORMED: (1, 1),
    FaultKind.STALL: (2, 20),
    FaultKind.SKEW: (30, 300),
    FaultKind.TOO_MANY_REQUESTS: (1, 10),
    FaultKind.HOLE: (1, 20),
}
_MOST = 86_400


class FaultPlanError(ValueError):
    """A plan or a request of faults can't be understood; the text says what it takes."""


class Rule(NamedTuple):
    """How often a kind of fault happens, and the range of its amount."""

    chance: float
    """For each match message; of 429: for each REST request."""
    low: int
    high: int


class Injection(msgspec.Struct, frozen=True):
    """A fault that happened. `at_us` is the exchange's time; ids are 0 where no trade is concerned."""

    kind: FaultKind
    product: str
    at_us: int
    first_trade_id: int
    last_trade_id: int
    amount: int


class Wish(NamedTuple):
    """A fault to inject: of which kind, how much, and random bits for its details."""

    kind: FaultKind
    amount: int
    bits: int


def parse_plan(text: str) -> dict[FaultKind, Rule]:
    """Return the plan written as `kind:chance` or `kind:chance:low-high`, separated by commas.

    >>> parse_plan("gap:0.001,stall:0.00001:2-5")[FaultKind.STALL]
    Rule(chance=1e-05, low=2, high=5)

    Raises:
        FaultPlanError: an unknown kind, a kind given twice, no chance, no range.
    """
    plan: dict[FaultKind, Rule] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, *rest = entry.split(":")
        kind = parse_kind(name.strip())
        if kind is FaultKind.HOLE:
            raise FaultPlanError("'hole' can't be planned, only requested: nothing could fill what it leaves")
        if kind in plan:
            raise FaultPlanError(f"{name!r} is planned twice")
        if len(rest) not in (1, 2):
            raise FaultPlanError(f"{entry[:40]!r} is not KIND:CHANCE or KIND:CHANCE:LOW-HIGH")
        low, high = _range(rest[1]) if len(rest) == 2 else _AMOUNTS[kind]
        plan[kind] = Rule(_chance(rest[0]), low, high)
    return plan


def parse_kind(name: str) -> FaultKind:
    """Return the kind of this name.

    Raises:
        FaultPlanError: there is none; the text lists them.
    """
    try:
        return FaultKind(name)
    except ValueError:
        raise FaultPlanError(f"{name[:40]!r} is no fault; there are {', '.join(FaultKind)}") from None


def _chance(text: str) -> float:
    try:
        chance = float(text)
    except ValueError:
        chance = -1.0
    if not 0.0 <= chance <= 1.0:
        raise FaultPlanError(f"a chance is a number from 0 to 1, not {text[:40]!r}")
    return chance


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise FaultPlanError(f"a range is LOW-HIGH, such as 2-20, not {text[:40]!r}")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= _MOST:
        raise FaultPlanError(f"a range goes up, from at least 1 to at most {_MOST}; {text[:40]!r} does not")
    return first, last


class Faults:
    """The plan, the requests, and the record of one exchange.

    Args:
        seed: of the plan; the same seed and plan choose the same trades.
        plan: chances by kind.
    """

    def __init__(self, seed: int, plan: Mapping[FaultKind, Rule]) -> None:
        self._plan = plan
        self._seed = seed
        self._trade_kinds = [kind for kind in plan if kind is not FaultKind.TOO_MANY_REQUESTS]
        self._wished: dict[str, deque[Wish]] = defaultdict(deque)
        self._requests = 0
        self._requested = 0
        self._to_refuse = 0
        self._skew_us = 0
        self._skew_until_us = 0
        self.holes: dict[str, TradeIds] = defaultdict(TradeIds)
        """Trades that REST denies."""
        self.injected: deque[Injection] = deque(maxlen=MOST_RECORDED)
        self.injected_total: Counter[FaultKind] = Counter()
        """How many were injected by kind, also beyond what the record keeps."""

    def planned(self, product: str, trade_ids: Ints) -> dict[int, Wish]:
        """Return what the plan has for a product's trades, at most one fault for each id."""
        chosen: dict[int, Wish] = {}
        for kind in self._trade_kinds:
            rule = self._plan[kind]
            bits = hashed(key(self._seed, product, "fault", kind), trade_ids)
            for place in np.flatnonzero(below(bits, rule.chance)).tolist():
                details = int(hashed(key(self._seed, kind), trade_ids[place : place + 1])[0])
                amount = rule.low + details % (rule.high - rule.low + 1)
                chosen.setdefault(int(trade_ids[place]), Wish(kind, amount, details >> 20))
        return chosen

    def request(self, kind: FaultKind, product: str = "", amount: int | None = None) -> None:
        """Ask for a fault now: with the product's next match, or with any product's where it is empty.

        Raises:
            FaultPlanError: the amount is out of range.
        """
        if amount is not None and not 1 <= amount <= _MOST:
            raise FaultPlanError(f"an amount is from 1 to {_MOST}, not {amount}")
        wanted = _AMOUNTS[kind][0] if amount is None else amount
        if kind is FaultKind.TOO_MANY_REQUESTS:
            self._to_refuse += wanted
        else:
            self._requested += 1
            details = hashed(key(self._seed, "request"), np.array([self._requested]))
            self._wished[product].append(Wish(kind, wanted, int(details[0]) >> 20))

    def wished(self, product: str) -> Wish | None:
        """Take the next request that a match of this product fulfils."""
        for name in (product, ""):
            queue = self._wished.get(name)
            if queue:
                return queue.popleft()
        return None

    def has_wishes(self, product: str) -> bool:
        """Tell whether a match of this product would fulfil a request."""
        return bool(self._wished.get(product) or self._wished.get(""))

    def record(self, wish: Wish, product: str, at_us: int, first_id: int = 0, last_id: int = 0) -> None:
        """Note that a fault was injected."""
        self.injected_total[wish.kind] += 1
        self.injected.append(Injection(wish.kind, product, at_us, first_id, last_id, wish.amount))

    def refuses_request(self, at_us: int) -> bool:
        """Tell whether REST answers the next request with 429 by a fault, and note it if so."""
        self._requests += 1
        rule = self._plan.get(FaultKind.TOO_MANY_REQUESTS)
        if rule is not None and self._to_refuse == 0:
            bits = hashed(key(self._seed, FaultKind.TOO_MANY_REQUESTS), np.array([self._requests]))
            if below(bits, rule.chance)[0]:
                self._to_refuse = rule.low + int(bits[0]) % (rule.high - rule.low + 1)
        if self._to_refuse == 0:
            return False
        self._to_refuse -= 1
        self.record(Wish(FaultKind.TOO_MANY_REQUESTS, 1, 0), "", at_us)
        return True

    def skew_clock(self, wish: Wish, at_us: int) -> None:
        """Let the exchange's clock be wrong for `amount` seconds, by up to a minute either way."""
        self._skew_us = (wish.bits % 59 + 1) * (1_000_000 if wish.bits & 64 else -1_000_000)
        self._skew_until_us = at_us + wish.amount * 1_000_000

    def skew_us(self, at_us: int) -> int:
        """Return what the exchange's clock is wrong by."""
        return self._skew_us if at_us < self._skew_until_us else 0
