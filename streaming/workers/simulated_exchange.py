"""The process of the simulated exchange: serves until SIGTERM or SIGINT."""

import asyncio
import signal
import sys

import structlog
from prometheus_client import REGISTRY

from lakehouse import logs
from lakehouse.home import HomeError, home_of
from lakehouse.market.product import InvalidProductError
from lakehouse.settings import Settings, SettingsError, load_settings
from streaming.exchanges.simulated.faults import FaultPlanError
from streaming.exchanges.simulated.metrics import ExchangeCollector
from streaming.exchanges.simulated.server import SimulatedExchange
from streaming.workers.garbage import collect_seldom
from streaming.workers.metrics import serve

log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """Serve the exchange that the settings describe until a signal comes."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with SimulatedExchange.from_settings(settings) as exchange:
        REGISTRY.register(ExchangeCollector(exchange))
        serve("exchange", settings, home_of(settings, namespace="simulated").create())
        log.info(
            "the simulated exchange is open: none of its data is real",
            websocket=exchange.websocket_url,
            rest=exchange.rest_url,
            products=list(exchange.market.products),
            seed=settings.simulated_seed,
            rate=settings.simulated_rate,
            speed=settings.simulated_speed,
            faults=settings.simulated_faults,
        )
        collect_seldom()
        failing = asyncio.create_task(exchange.wait())
        stopping = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        stopping.cancel()
        if failing in done:
            failing.result()
    log.info("the simulated exchange is closed")


def main() -> int:
    """Run the process; returns its exit code."""
    logs.configure("simulated_exchange")
    try:
        asyncio.run(run(load_settings()))
    except (SettingsError, HomeError, FaultPlanError, InvalidProductError, OSError) as error:
        # One sentence for a person; a traceback would hide it.
        log.error("the simulated exchange can't run", reason=str(error))  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
