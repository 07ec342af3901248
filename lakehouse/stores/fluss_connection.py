"""Reaching Fluss: one place for its time-outs, its configuration and its errors.

The client (pyfluss) raises one kind of error with a number, may wait for ever, and after the death of a
tablet server its writers sometimes never answer again. So nothing of it is awaited except through `answer`,
and a writer that failed is abandoned: neither closed, which waits for what will not come, nor dropped.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import fluss

from lakehouse.client_threads import let_go_at_exit
from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.hot_store import HotStoreError

_Answer = TypeVar("_Answer")

_CLIENT: Final = {
    # How long rows wait in the client for company. They come in batches already.
    "writer.batch-timeout-ms": "5",
    # A write that finds the buffer full blocks the thread: room for far more than is ever in flight.
    "writer.buffer.memory-size": str(2**30),
    "writer.buffer.wait-timeout-ms": "500",
    # How long a server holds a fetch that finds nothing. It is what a subscriber waits at most.
    "scanner.log.fetch.wait-max-time-ms": "20",
}

_ABANDONED: Final[list[object]] = []

_REFUSALS: Final = {
    fluss.ErrorCode.INVALID_REPLICATION_FACTOR: "start all its tablet servers, or set "
    "LAKEHOUSE_FLUSS_REPLICAS to their number",
    fluss.ErrorCode.AUTHENTICATE_EXCEPTION: "it wants a login, which lakehouse doesn't have",
    fluss.ErrorCode.AUTHORIZATION_EXCEPTION: "allow this user to create and write the tables",
    fluss.ErrorCode.RECORD_TOO_LARGE_EXCEPTION: "raise its netty.server.max-request-size",
    fluss.ErrorCode.UNSUPPORTED_VERSION: "run a Fluss server of version 0.9",
}
"""Errors that trying again doesn't mend, and what does."""


class FlussStoreError(HotStoreError):
    """Fluss refused something; the text says what to do."""


class FlussUnavailableError(FlussStoreError):
    """Fluss can't be reached or did not answer in time: worth trying again on a new connection."""


class FlussTimeoutError(FlussUnavailableError):
    """No answer came; what was asked may still happen."""


@dataclass(frozen=True)
class FlussTarget:
    """Which tables of which Fluss, and how to get there."""

    address: str
    """The coordinator's, host:port."""
    database: str
    """The home's shared name: each namespace of each home has a database of its own."""
    replicas: int
    buckets: int
    """Buckets of each log table."""
    keep_hours: float
    """Age at which Fluss may drop rows of its logs."""
    timeout_seconds: float


def target_of(settings: Settings, home: Home) -> FlussTarget:
    """Return where a home's tables are.

    Raises:
        HomeError: the home was not made by `create`.
    """
    return FlussTarget(
        settings.fluss_address,
        home.shared_name,
        settings.fluss_replicas,
        settings.spine_partitions,
        settings.spine_retention_hours,
        settings.fluss_timeout_seconds,
    )


async def connect(target: FlussTarget) -> fluss.FlussConnection:
    """Return a new connection.

    Raises:
        FlussUnavailableError: nothing answers there.
        FlussStoreError: the address is none.
    """
    let_go_at_exit()
    host, _, port = target.address.rpartition(":")
    if not host or not port.isdecimal():
        raise FlussStoreError(
            f"{target.address!r} is no address of Fluss: set LAKEHOUSE_FLUSS_ADDRESS to host:port"
        )
    config = fluss.Config(
        {
            "bootstrap.servers": target.address,
            "connect-timeout": str(int(target.timeout_seconds * 1000)),
            **_CLIENT,
        }
    )
    return await answer(fluss.FlussConnection.create(config), target, "connecting")


async def answer(request: Awaitable[_Answer], target: FlussTarget, what: str) -> _Answer:
    """Wait for an answer of Fluss, but not for ever, and turn its errors into ours.

    Args:
        request: a call of the client.
        target: whom it goes to.
        what: what is being done, for the error.

    Raises:
        FlussTimeoutError: no answer within the time-out.
        FlussUnavailableError: a server is down or not ready.
        FlussStoreError: refused.
    """
    try:
        async with asyncio.timeout(target.timeout_seconds):
            return await request
    except TimeoutError:
        raise FlussTimeoutError(
            f"Fluss at {target.address} gave no answer within {target.timeout_seconds:g} s while {what}: "
            "are its servers running? (`lakehouse cluster status`)"
        ) from None
    except fluss.FlussError as error:
        raise store_error(error, target, what) from error


def abandon(writer: object) -> None:
    """Leave a writer that failed to itself until the process ends; nothing is to be had from it any more.

    Its client must not be told that nobody wants it: it would try to send what it still holds, for ever,
    without a pause and with a core to itself. After as many of them as there are cores no connection of
    this process gets an answer (pyfluss 1.0). Held, it is idle, at a few MiB of memory.
    """
    _ABANDONED.append(writer)


def store_error(error: fluss.FlussError, target: FlussTarget, what: str) -> FlussStoreError:
    """Return our error for one of the client's."""
    text = " ".join(error.message.split())[:300]
    advice = _REFUSALS.get(error.error_code)
    if advice is not None:
        return FlussStoreError(f"Fluss at {target.address} refused {what} ({text}): {advice}")
    return FlussUnavailableError(
        f"Fluss at {target.address} failed while {what} (code {error.error_code}, {text}): start it with "
        "`lakehouse cluster up`, or set LAKEHOUSE_FLUSS_ADDRESS"
    )
