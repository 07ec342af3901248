"""Logs to test: each kind of spine as something that is opened again and again, by any process."""

import textwrap
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from benchmarks.iggy_server import iggy_settings, iggy_values
from streaming.spine.contract import Spine
from streaming.spine.iggy import IggySpine
from streaming.spine.iggy_connection import IggyConnection
from streaming.spine.sqlite import SqliteSpine


class Log(Protocol):
    """One log, empty at first."""

    run_bytes: int
    """Retention drops messages in runs; a run is closed by the message that makes it longer than this."""

    def open(self, partitions: int = 3) -> Spine:
        """Open it, as a process that restarts does."""
        ...

    def opener(self) -> str:
        """Return Python that defines `spine`, for another process."""
        ...

    def delete(self) -> None:
        """Delete what a temporary folder doesn't hold."""
        ...


class SqliteLog:
    run_bytes = 0  # each call of `publish` begins a new one

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spine.db"

    def open(self, partitions: int = 3) -> Spine:
        return SqliteSpine.open(self._path, partitions)

    def opener(self) -> str:
        return textwrap.dedent(
            f"""
            from pathlib import Path
            from streaming.spine.sqlite import SqliteSpine
            spine = SqliteSpine.open(Path({str(self._path)!r}))
            """
        )

    def delete(self) -> None:
        """The folder goes by itself."""


class IggyLog:
    run_bytes = 2**20  # the shortest segments there are

    def __init__(self, address: str) -> None:
        self._address = address
        self._stream = f"lakehouse-test-{uuid4().hex}"

    def open(self, partitions: int = 3) -> Spine:
        settings = iggy_settings(self._address, spine_partitions=partitions)
        return IggySpine.open(settings, self._stream, segment_bytes=self.run_bytes)

    def opener(self) -> str:
        return textwrap.dedent(
            f"""
            from lakehouse.settings import load_settings
            from streaming.spine.iggy import IggySpine
            spine = IggySpine.open(load_settings(**{iggy_values(self._address)!r}), {self._stream!r})
            """
        )

    def delete(self) -> None:
        connection = IggyConnection(iggy_settings(self._address))
        if connection.ask(lambda client: client.get_stream(self._stream)) is not None:
            connection.ask(lambda client: client.delete_stream(self._stream))
        connection.close()
