"""Iggy as the spine, with each message on the disk before it is acknowledged.

Its server is given as for the tests: LAKEHOUSE_TEST_IGGY_BINARY, or LAKEHOUSE_TEST_IGGY_ADDRESS of one that
runs.
"""

import asyncio
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from apache_iggy import AutoLogin, IggyClient, SendMessage, TcpConfig

from benchmarks.figure import Figure, percentile
from benchmarks.iggy_server import ADDRESS, BINARY, PASSWORD, USERNAME, IggyServer, iggy_settings
from lakehouse import logs
from streaming.spine.contract import Partition
from streaming.spine.iggy import IggySpine
from streaming.spine.iggy_connection import IggyConnection
from streaming.spine.topics import TRADES

PARTITIONS = [Partition(TRADES, number) for number in range(3)]
MESSAGE_BYTES = 200

BATCH = 1_000
BATCHES = 600

RATE = 12_000
FLUSH_SECONDS = 0.005
SECONDS = 15
NOT_COUNTED_SECONDS = 3
"""What the first seconds show is how processes start."""


def measure() -> list[Figure]:
    """Publish as fast as it goes, then at a rate while another process reads; nothing without a server."""
    logs.configure("benchmark", json=False)
    if not {BINARY, ADDRESS} & os.environ.keys():
        print(f"no Iggy server, which is in no package registry: set {BINARY} or {ADDRESS}", file=sys.stderr)
        return []
    with _server() as address, _stream(address) as stream:
        bare = _bare_rate(address, stream)
        rate = _rate(address, stream)
        acknowledged = _bare_acknowledgements(address, stream)
        latencies = _latencies(address, stream)
    return [
        Figure(
            f"Iggy, persisted, batches of {BATCH:,}",
            *(rate, "messages/s", "Iggy's own client, the same batches", bare),
            "≥ 60,000/s",
        ),
        Figure(
            f"Iggy, persisted, due → read by another process, {RATE:,}/s, p99",
            *(percentile(latencies, 0.99) * 1000, "ms", "p99 of an acknowledgement of Iggy's own client"),
            percentile(acknowledged, 0.99) * 1000,
            "≤ 25 ms",
        ),
    ]


@contextmanager
def _server() -> Iterator[str]:
    if BINARY in os.environ:
        with (
            tempfile.TemporaryDirectory() as folder,
            IggyServer(Path(os.environ[BINARY]), Path(folder)) as server,
        ):
            yield server.address
    else:
        yield os.environ[ADDRESS]


@contextmanager
def _stream(address: str) -> Iterator[str]:
    """Give a stream with the spine's topics, for this run alone."""
    stream = f"lakehouse-benchmark-{uuid4().hex}"
    IggySpine.open(iggy_settings(address), stream).close()
    yield stream
    connection = IggyConnection(iggy_settings(address))
    connection.ask(lambda client: client.delete_stream(stream))
    connection.close()


def _rate(address: str, stream: str) -> float:
    payloads = [os.urandom(MESSAGE_BYTES) for _ in range(BATCH)]
    with IggySpine.open(iggy_settings(address), stream) as spine:
        start = time.perf_counter()
        for i in range(BATCHES):
            spine.publish({PARTITIONS[i % 3]: payloads})
        return BATCH * BATCHES / (time.perf_counter() - start)


def _bare_rate(address: str, stream: str) -> float:
    payloads = [os.urandom(MESSAGE_BYTES) for _ in range(BATCH)]

    async def publish() -> float:
        client = await _bare_client(address)
        start = time.perf_counter()
        for i in range(BATCHES):
            await client.send_messages(stream, TRADES, i % 3, [SendMessage(payload) for payload in payloads])
        seconds = time.perf_counter() - start
        await asyncio.sleep(0.2)
        return BATCH * BATCHES / seconds

    return asyncio.run(publish())


def _bare_acknowledgements(address: str, stream: str) -> list[float]:
    """Return how long the acknowledgement of as much as one flush brings took, in seconds."""

    async def publish() -> list[float]:
        client = await _bare_client(address)
        times = []
        for i in range(2_000):
            payloads = [os.urandom(MESSAGE_BYTES)] * int(RATE * FLUSH_SECONDS / 3)
            start = time.perf_counter()
            await client.send_messages(stream, TRADES, i % 3, [SendMessage(payload) for payload in payloads])
            times.append(time.perf_counter() - start)
        await asyncio.sleep(0.2)
        return times

    return asyncio.run(publish())


async def _bare_client(address: str) -> IggyClient:
    login = AutoLogin.username_password(USERNAME, PASSWORD)
    config = TcpConfig(
        server_address=address, auto_login=login, nodelay=True, heartbeat_interval=timedelta(seconds=5)
    )
    client = IggyClient(config)
    await client.connect()
    return client


def _latencies(address: str, stream: str) -> list[float]:
    """Return how long after it was due each message was read, in seconds."""
    with IggySpine.open(iggy_settings(address), stream) as spine:
        offsets = {partition: spine.end(partition) for partition in PARTITIONS}
        publisher: Any = multiprocessing.get_context("spawn").Process(
            target=_publish_at_rate, args=(address, stream)
        )
        publisher.start()
        latencies: list[float] = []
        begun = None
        wanted = RATE * SECONDS
        count = 0
        while count < wanted:
            found = 0
            for partition in PARTITIONS:
                batch = spine.read(partition, offsets[partition], 10_000)
                now = time.monotonic()
                offsets[partition] = batch.next_offset
                found += len(batch.payloads)
                for payload in batch.payloads:
                    (due,) = struct.unpack_from("<d", payload)
                    begun = due if begun is None else begun
                    if due >= begun + NOT_COUNTED_SECONDS:
                        latencies.append(now - due)
            count += found
            if not found:
                if publisher.exitcode:
                    sys.exit("the publisher failed")
                time.sleep(0.001)
        publisher.join()
    return latencies


def _publish_at_rate(address: str, stream: str) -> None:
    filling = os.urandom(MESSAGE_BYTES - 8)
    each = int(RATE * FLUSH_SECONDS / 3)
    with IggySpine.open(iggy_settings(address), stream) as spine:
        start = time.monotonic() + 0.1
        for flush in range(int(SECONDS / FLUSH_SECONDS)):
            due = start + flush * FLUSH_SECONDS
            time.sleep(max(due - time.monotonic(), 0))
            message = struct.pack("<d", due) + filling
            spine.publish(dict.fromkeys(PARTITIONS, [message] * each))
