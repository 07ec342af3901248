"""An exchange that is a list: stands in where one that loses trades can't be had."""

from collections.abc import AsyncIterator, Sequence

from lakehouse.market.quarantine import RefusedError
from lakehouse.market.trade import Exchange, Trade
from streaming.exchanges.contract import BookSnapshot, RestError, TradePage
from streaming.sealing.day import Origin


class ListedRest:
    """An exchange whose trades stand in a list; speaks the contract `Rest`, with small pages."""

    def __init__(self, trades: Sequence[Trade], page: int = 7) -> None:
        self.made = sorted(trades, key=lambda trade: -trade.trade_id)
        self.forgotten: set[int] = set()
        self.refused: dict[int, tuple[bytes, RefusedError]] = {}
        self.page = page
        self.asked: list[tuple[int | None, int | None]] = []
        self.is_down = False

    async def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        if self.is_down:
            raise RestError("no answer")
        self.asked.append((first_id, before_id))
        listed = [
            trade
            for trade in self.made
            if (before_id is None or trade.trade_id < before_id)
            and (first_id is None or trade.trade_id >= first_id)
        ]
        for start in range(0, len(listed), self.page):
            part = listed[start : start + self.page]
            older = part[-1].trade_id if start + self.page < len(listed) else None
            refused = [self.refused[trade.trade_id] for trade in part if trade.trade_id in self.refused]
            good = [t for t in part if t.trade_id not in self.refused and t.trade_id not in self.forgotten]
            yield TradePage(good, refused, older)

    async def trade_id_before(self, product: str, moment_us: int) -> int | None:
        if self.is_down:
            raise RestError("no answer")
        return next((trade.trade_id for trade in self.made if trade.event_us < moment_us), None)

    async def book(self, product: str) -> tuple[bytes, BookSnapshot]:
        raise RestError("no book here")

    async def close(self) -> None:
        self.is_down = True

    def origin(self) -> Origin:
        return Origin(Exchange.SIMULATED, self)
