"""The spine in one SQLite file: WAL with `synchronous=FULL`, no server.

Each partition is a table whose rows are runs of consecutive messages, keyed by the first one's offset
(what Kafka calls a record batch): a message costs nanoseconds, not a row. A row of `partitions` keeps
each partition's bounds, so that an emptied one still knows its end. One transaction holds a whole batch.
"""

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Final, Self

from lakehouse.market.time import now_us
from lakehouse.stores.write_ahead import write_ahead
from streaming.spine.contract import (
    Batch,
    OffsetAheadError,
    OffsetExpiredError,
    Partition,
    SpineError,
    SpineUnavailableError,
)
from streaming.spine.topics import SESSIONS, TOPICS

MAX_READ_BYTES: Final = 64 * 2**20
"""A read stops after this many bytes even if `limit` allows more; it always returns one message."""

_RUN_BYTES = 2**20
"""A run of messages ends after this many bytes, so that reading from its middle stays cheap."""

_RETAIN_RUNS = 2_000
"""Runs dropped in one transaction: few enough that a publisher hardly waits."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS partitions (
    topic TEXT NOT NULL, number INTEGER NOT NULL,
    start_offset INTEGER NOT NULL DEFAULT 0, end_offset INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, published_us INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS committed (
    reader TEXT NOT NULL, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (reader, topic, number)) WITHOUT ROWID;
"""


class SqliteSpine:
    """A `Spine` in a file; open it in as many processes as needed.

    >>> import tempfile
    >>> with SqliteSpine.open(Path(tempfile.mkdtemp()) / "spine.db") as spine:
    ...     first = spine.publish({Partition("trades", 0): [b"one", b"two"]})
    ...     spine.read(Partition("trades", 0), 1, 10).payloads
    [b'two']
    """

    def __init__(self, connection: sqlite3.Connection, partitions: int) -> None:
        self._connection = connection
        self._partitions = partitions
        self._lock = RLock()
        self._tables = {
            Partition(topic, number): f"{topic}_{number}"
            for topic in TOPICS
            for number in range(1 if topic == SESSIONS else partitions)
        }

    @classmethod
    def open(cls, path: Path, partitions: int = 3) -> Self:
        """Open a log, creating it with `partitions` partitions a topic where there is none.

        Raises:
            SpineError: the file is no log, can't be opened, or has another number of partitions.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")
            connection.execute("PRAGMA journal_size_limit=67108864")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            existing = connection.execute("SELECT partitions FROM log").fetchone()
            if existing is None:
                connection.execute("INSERT INTO log VALUES (?)", (partitions,))
            elif existing[0] != partitions:
                connection.close()
                raise SpineError(
                    f"the log {path} has {existing[0]} partitions a topic, not {partitions}: set "
                    f"LAKEHOUSE_SPINE_PARTITIONS={existing[0]} or start with an empty LAKEHOUSE_HOME"
                )
            spine = cls(connection, partitions)
            for partition, table in spine._tables.items():
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(first_offset INTEGER PRIMARY KEY, messages INTEGER NOT NULL, "
                    "published_us INTEGER NOT NULL, lengths BLOB NOT NULL, payloads BLOB NOT NULL)"
                )
                connection.execute(
                    "INSERT OR IGNORE INTO partitions (topic, number) VALUES (?, ?)", partition
                )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise SpineError(f"the log {path} can't be opened: {error}") from error
        except OSError as error:
            raise SpineError(f"the log {path} can't be made: {error}") from error
        return spine

    @property
    def partitions(self) -> int:
        """Partitions of each topic; `sessions` has one."""
        return self._partitions

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        """Append the whole batch in one transaction; see `Spine.publish`."""
        first_offsets: dict[Partition, int] = {}
        with self._transaction() as execute:
            now = now_us()
            for partition, payloads in batch.items():
                table = self._table(partition)
                end, latest = execute(
                    "SELECT end_offset, published_us FROM partitions WHERE topic = ? AND number = ?",
                    partition,
                ).fetchone()
                published = max(now, latest)  # a clock set back must not make time decrease
                offset = end
                for run in _runs(payloads):
                    lengths = array("I", map(len, run)).tobytes()
                    row = (offset, len(run), published, lengths, b"".join(run))
                    execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", row)
                    offset += len(run)
                execute(
                    "UPDATE partitions SET end_offset = ?, bytes = bytes + ?, published_us = ? "
                    "WHERE topic = ? AND number = ?",
                    (offset, sum(map(len, payloads)), published, *partition),
                )
                first_offsets[partition] = end
        return first_offsets

    def read(self, partition: Partition, offset: int, limit: int) -> Batch:
        """Return messages from `offset` on; see `Spine.read`. Stops after `MAX_READ_BYTES`."""
        table = self._table(partition)
        times: list[int] = []
        payloads: list[bytes] = []
        size = 0
        with self._errors():
            runs = self._connection.execute(
                f"SELECT first_offset, published_us, lengths, payloads FROM {table} WHERE first_offset >= "
                f"(SELECT coalesce(max(first_offset), ?1) FROM {table} WHERE first_offset <= ?1) "
                "ORDER BY first_offset",
                (offset,),
            )
            for first_offset, published_us, lengths, joined in runs:
                run = _split(joined, lengths)[max(offset - first_offset, 0) :]
                if first_offset > offset + len(payloads):
                    break  # `offset` itself is gone
                payloads += run
                times += [published_us] * len(run)
                size += len(joined)
                if len(payloads) >= limit or size >= MAX_READ_BYTES:
                    break
            runs.close()
        if not payloads:
            start, end = self._bounds(partition)
            if offset < start:
                raise OffsetExpiredError(partition, offset, start)
            if offset > end:
                raise OffsetAheadError(partition, offset, end)
        return Batch(offset, times[:limit], payloads[:limit])

    def start(self, partition: Partition) -> int:
        """Return the first offset still there."""
        return self._bounds(partition)[0]

    def end(self, partition: Partition) -> int:
        """Return the offset of the next message."""
        return self._bounds(partition)[1]

    def settled_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return where partitions end: a transaction is in the file or will never be."""
        return {partition: self.end(partition) for partition in partitions}

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Record a group's offsets; see `Spine.commit`."""
        with self._transaction() as execute:
            for partition, offset in offsets.items():
                if offset > (end := self._bounds(partition)[1]):
                    raise OffsetAheadError(partition, offset, end)
                execute("INSERT OR REPLACE INTO committed VALUES (?, ?, ?, ?)", (group, *partition, offset))

    def committed(self, group: str, partition: Partition) -> int | None:
        """Return the offset a group committed last, None where it never did."""
        self._table(partition)
        with self._errors():
            row = self._connection.execute(
                "SELECT next_offset FROM committed WHERE reader = ? AND topic = ? AND number = ?",
                (group, *partition),
            ).fetchone()
        return None if row is None else int(row[0])

    def retain(self, readers: Mapping[str, Sequence[str]], max_age_us: int, max_bytes: int) -> int:
        """Drop old messages that every reader is done with; see `Spine.retain`."""
        dropped = 0
        oldest = now_us() - max_age_us
        for partition in self._tables:
            positions = [self.committed(group, partition) for group in readers.get(partition.topic, ())]
            safe = min((0 if position is None else position for position in positions), default=0)
            while count := self._drop_runs(partition, safe, oldest, max_bytes):
                dropped += count
        return dropped

    def _drop_runs(self, partition: Partition, safe: int, oldest: int, max_bytes: int) -> int:
        table = self._table(partition)
        with self._transaction() as execute:
            start, size = execute(
                "SELECT start_offset, bytes FROM partitions WHERE topic = ? AND number = ?", partition
            ).fetchone()
            kept_from, left = start, size
            for messages, published, length in execute(
                f"SELECT messages, published_us, length(payloads) FROM {table} "
                "WHERE first_offset + messages <= ? ORDER BY first_offset LIMIT ?",
                (safe, _RETAIN_RUNS),
            ):
                if published >= oldest and left <= max_bytes:
                    break
                kept_from += messages
                left -= length
            if kept_from > start:
                execute(f"DELETE FROM {table} WHERE first_offset < ?", (kept_from,))
                execute(
                    "UPDATE partitions SET start_offset = ?, bytes = ? WHERE topic = ? AND number = ?",
                    (kept_from, left, *partition),
                )
        return int(kept_from - start)

    def close(self) -> None:
        """Close the file; a checkpoint may run if this was the last one open."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _table(self, partition: Partition) -> str:
        try:
            return self._tables[partition]
        except KeyError:
            raise SpineError(
                f"{partition.topic[:40]!r}/{partition.number} is no partition of this log"
            ) from None

    def _bounds(self, partition: Partition) -> tuple[int, int]:
        self._table(partition)
        with self._errors():
            start, end = self._connection.execute(
                "SELECT start_offset, end_offset FROM partitions WHERE topic = ? AND number = ?", partition
            ).fetchone()
        return int(start), int(end)

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Serialise the calls of this connection and turn SQLite's errors into the contract's."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise SpineUnavailableError(
                    f"the log did not answer ({error}): free disk space or wait for the other process"
                ) from error
            except sqlite3.Error as error:
                raise SpineError(f"the log is damaged or was closed: {error}") from error


def _runs(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut messages into runs of about `_RUN_BYTES`, each of at least one message."""
    first = size = 0
    for i, payload in enumerate(payloads):
        size += len(payload)
        if size >= _RUN_BYTES:
            yield payloads[first : i + 1]
            first, size = i + 1, 0
    if first < len(payloads):
        yield payloads[first:]


def _split(joined: bytes, lengths: bytes) -> list[bytes]:
    """Return the messages of a run."""
    sizes = array("I")
    sizes.frombytes(lengths)
    ends = list(accumulate(sizes))
    return [joined[end - size : end] for end, size in zip(ends, sizes, strict=True)]
