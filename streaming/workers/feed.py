"""The feed: from an exchange's socket, or a recording, into the spine."""

import asyncio
import signal
import sys

import structlog

from lakehouse.home import Home, HomeError, Namespace, home_of
from lakehouse.logs import configure
from lakehouse.market.trade import Exchange as ExchangeCode
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.lock import AlreadyRunningError, held
from streaming.exchanges.choice import exchange_for
from streaming.exchanges.recording import Recording, RecordingError
from streaming.feed.handler import FeedError
from streaming.feed.intake import FeedTotals
from streaming.feed.live import run_live
from streaming.feed.recorded import run_recorded
from streaming.spine.contract import Spine, SpineError
from streaming.spine.opening import open_spine
from streaming.workers import metrics
from streaming.workers.garbage import collect_seldom

log = structlog.get_logger()


def namespace_of(settings: Settings) -> Namespace:
    """Return the namespace the chosen feed's data belongs in.

    Raises:
        RecordingError: the feed is a recording that can't be read.
    """
    if settings.recording is not None:
        return _namespace(Recording(settings.recording).exchange)
    return "simulated" if settings.feed_kind == "simulated" else "market"


async def run_feed(settings: Settings, home: Home, spine: Spine, stop: asyncio.Event) -> FeedTotals:
    """Feed a spine until `stop` is set, or the recording is at its end.

    Raises:
        FeedError: the feed doesn't go with what is in this home already.
        RecordingError: the recording can't be read.
        SpineError: the spine is damaged.
    """
    if settings.recording is not None:
        recording = Recording(settings.recording)
        code = recording.exchange
    else:
        recording = None
        code = ExchangeCode[settings.feed_kind.upper()]
    if _namespace(code) != home.namespace:
        raise FeedError(
            f"data of {code.name.lower()} doesn't go into {home.folder}: simulated and real data never mix"
        )
    products = settings.products if recording else settings.chosen_products
    exchange = exchange_for(code, settings, products)
    with held(home.locks, "feed", wait=False):
        if recording is not None:
            return await run_recorded(settings, spine, exchange, recording, stop)
        return await run_live(settings, spine, exchange, stop)


def _namespace(code: ExchangeCode) -> Namespace:
    return "simulated" if code is ExchangeCode.SIMULATED else "market"


async def _run() -> FeedTotals:
    settings = load_settings()
    home = home_of(settings, namespace=namespace_of(settings)).create()
    try:
        metrics.serve("feed", settings, home)
    except OSError as error:
        raise FeedError(f"the metrics' port is taken ({error}): set LAKEHOUSE_METRICS_PORT") from None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with open_spine(settings, home) as spine:
        collect_seldom()
        return await run_feed(settings, home, spine, stop)


def main() -> int:
    """Run the worker; the exit code is 0 unless it could not go on."""
    configure("feed")
    try:
        totals = asyncio.run(_run())
    except (
        SettingsError,
        HomeError,
        FeedError,
        RecordingError,
        SpineError,
        AlreadyRunningError,
    ) as error:
        log.critical("the feed stopped", problem=str(error))
        return 1
    log.info("the feed ended", **{name: getattr(totals, name) for name in FeedTotals.__dataclass_fields__})
    return 0


if __name__ == "__main__":
    sys.exit(main())
