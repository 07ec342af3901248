"""The feed's metrics for Prometheus, and how they are read off the handler."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from lakehouse.market.time import SECOND_US
from lakehouse.market.trade import Exchange
from streaming.feed.handler import FeedHandler

RECEIVED: Final = Counter(
    "lakehouse_feed_received", "Inputs that came in, by kind; counted once a second.", ["exchange", "kind"]
)
ACCEPTED: Final = Counter("lakehouse_feed_accepted", "Inputs that were new and good.", ["exchange", "kind"])
DUPLICATES: Final = Counter(
    "lakehouse_feed_duplicates", "Inputs that were known already.", ["exchange", "kind"]
)
QUARANTINED: Final = Counter("lakehouse_feed_quarantined", "Inputs that were refused.", ["reason"])
UNACCOUNTED: Final = Gauge(
    "lakehouse_feed_unaccounted", "Received less accepted, duplicates and quarantined; must be 0."
)
RECONNECTS: Final = Counter("lakehouse_feed_reconnects", "Connections made after the first.")
CONNECTED: Final = Gauge("lakehouse_feed_connected", "1 while the socket is connected.")
GAPS_FOUND: Final = Counter("lakehouse_feed_gaps_found", "Ranges of missing trades that were found.")
GAPS_OPEN: Final = Gauge("lakehouse_feed_gaps_open", "Ranges of missing trades that are not filled.")
EXCHANGE_ERRORS: Final = Counter("lakehouse_feed_exchange_errors", "Errors the exchange answered.")
NEWEST_TRADE: Final = Gauge(
    "lakehouse_feed_newest_trade_seconds", "Event time of the newest trade, Unix time.", ["product"]
)
FRESHNESS: Final = Gauge(
    "lakehouse_feed_freshness_seconds", "Age of the newest trade by event time.", ["product"]
)
BUFFERED: Final = Gauge("lakehouse_feed_buffered_frames", "Frames that were read and not handled yet.")
PAUSES: Final = Counter(
    "lakehouse_feed_pauses", "Times the socket wasn't read because too much was buffered."
)
PUBLISH_SECONDS: Final = Histogram(
    "lakehouse_feed_publish_seconds",
    "Time until a batch was durable in the spine.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


class HandlerMetrics:
    """Carries a handler's counts over to Prometheus."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange.name.lower()
        self._seen: dict[tuple[str, ...], int] = {}

    def update(self, handler: FeedHandler, now_us: int) -> None:
        """Read the handler; call it once a second or so, after its counts were put out."""
        for (kind, name), value in handler.counts_by_kind().items():
            counter = {"received": RECEIVED, "accepted": ACCEPTED, "duplicates": DUPLICATES}[name]
            counter.labels(self._exchange, kind).inc(self._more(value, "count", kind, name))
        for reason, value in handler.refused.items():
            QUARANTINED.labels(reason).inc(self._more(value, "refused", reason))
        totals = handler.totals()
        UNACCOUNTED.set(totals.unaccounted)
        GAPS_FOUND.inc(self._more(totals.gaps, "gaps"))
        GAPS_OPEN.set(handler.open_gaps)
        EXCHANGE_ERRORS.inc(self._more(handler.errors, "errors"))
        for product, newest_us in handler.newest_event_us.items():
            if newest_us:
                NEWEST_TRADE.labels(product).set(newest_us / SECOND_US)
                FRESHNESS.labels(product).set((now_us - newest_us) / SECOND_US)

    def _more(self, value: int, *key: str) -> int:
        more = value - self._seen.get(key, 0)
        self._seen[key] = value
        return more
