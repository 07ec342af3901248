"""Frame → durable in the spine, held against a client that reads the same socket and does nothing."""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from websockets.asyncio.client import connect

from benchmarks.figure import Figure
from benchmarks.match_server import PRODUCTS
from lakehouse.home import Home
from lakehouse.settings import load_settings
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES
from streaming.workers.feed import run_feed

FRAMES = 600_000


def measure() -> list[Figure]:
    """Push the same frames at a bare client and at the feed."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.match_server", str(FRAMES)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        bare = FRAMES / asyncio.run(_read_only(url))
        durable = FRAMES / asyncio.run(_through_the_feed(url))
    finally:
        server.terminate()
        server.wait()
    return [
        Figure(
            "frame → durable in the spine",
            *(durable, "frames/s", "a websockets client that only reads", bare),
            "≥ 60,000/s, goal 100,000/s",
        )
    ]


async def _read_only(url: str) -> float:
    async with connect(url, compression=None, max_queue=None) as client:
        await client.send("{}")
        start = time.perf_counter()
        for _ in range(FRAMES):
            await client.recv()
        return time.perf_counter() - start


async def _through_the_feed(url: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        settings = load_settings(
            home=home.root, feed="simulated", products=",".join(PRODUCTS), simulated_websocket_port=0
        )
        settings = settings.model_copy(update={"simulated_websocket_port": int(url.rsplit(":", 1)[1])})
        stop = asyncio.Event()
        with SqliteSpine.open(home.spine) as spine, SqliteSpine.open(home.spine) as watching:
            feed = asyncio.create_task(run_feed(settings, home, spine, stop))
            partitions = [Partition(TRADES, number) for number in range(spine.partitions)]
            first = None
            while (durable := sum(watching.end(partition) for partition in partitions)) < FRAMES:
                if durable and first is None:
                    first = (time.perf_counter(), durable)
                if feed.done():
                    feed.result()
                await asyncio.sleep(0.01)
            end = time.perf_counter()
            stop.set()
            await feed
    assert first is not None
    start, already = first
    return (end - start) * FRAMES / (FRAMES - already)
