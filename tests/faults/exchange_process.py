"""The simulated exchange as a process, with a market that begins and ends at fixed times.

Usage: python exchange_process.py SETTINGS, where SETTINGS are `SimulatedExchange`'s keyword arguments as
JSON. Prints its two addresses as one JSON line, then serves until SIGTERM.
"""

import asyncio
import json
import signal
import sys

from streaming.exchanges.simulated.server import SimulatedExchange


async def serve(**arguments: object) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with SimulatedExchange(**arguments) as exchange:
        print(json.dumps([exchange.websocket_url, exchange.rest_url]), flush=True)
        failing = asyncio.create_task(exchange.wait())
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()


if __name__ == "__main__":
    asyncio.run(serve(**json.loads(sys.argv[1])))
