"""A log with a market in it, tables of Fluss that belong to one test, and what they have to hold."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import fluss
import pyarrow as pa
from log_messages import PRODUCTS, START, market, publish, quote_message, trade
from prometheus_client import REGISTRY
from running_cluster import RunningCluster

from lakehouse.home import Home
from lakehouse.market.book import BookKind, pack_book
from lakehouse.market.trade import Exchange, Lateness
from lakehouse.stores.fluss_connection import FlussStoreError, FlussTarget, connect, target_of
from lakehouse.stores.fluss_tables import COLUMNS, path_of
from lakehouse.stores.fluss_writer import FlussWriter, event_loop
from streaming.engines.embedded.decode import ROWS
from streaming.engines.fluss.archived import Archived, CommittedByArchive
from streaming.engines.fluss.bridge import TOPICS, BridgeStage
from streaming.engines.fluss.current_table import CurrentTable
from streaming.engines.fluss.known_ends import KnownEnds
from streaming.spine.contract import Batch, Partition, Spine, partition_number
from streaming.spine.topics import BOOK, QUOTES

TIMEOUT_SECONDS = 20.0
"""Long enough for a busy machine; tests of faults, which wait for it, set a shorter one."""

TABLETS = ("fluss-tablet-0", "fluss-tablet-1", "fluss-tablet-2")


def target_for(cluster: RunningCluster, home: Path, **overrides: object) -> FlussTarget:
    """Tables of their own: everything in Fluss belongs to a database."""
    settings = cluster.settings(home, fluss_timeout_seconds=TIMEOUT_SECONDS, **overrides)
    return replace(target_of(settings, Home(home, "simulated").create()), database=f"test_{uuid4().hex[:12]}")


def drop(target: FlussTarget) -> None:
    """Drop a database with all that is in it."""

    async def dropped() -> None:
        admin = (await connect(target)).get_admin()
        await admin.drop_database(target.database, ignore_if_not_exists=True, cascade=True)

    asyncio.run(dropped())


@contextmanager
def own_tables(cluster: RunningCluster, home: Path) -> Iterator[FlussTarget]:
    """A target whose tables are gone at the end of the block."""
    target = target_for(cluster, home)
    try:
        yield target
    finally:
        drop(target)


def publish_market(spine: Spine, seed: int, trades: int = 600, *, first: int = 0) -> None:
    """Trades, late and repeated and too late ones among them, quotes with and without imbalance, books."""
    chance = random.Random(seed)
    made = market(seed, trades)
    for at in range(0, len(made), 100):
        part = made[at : at + 100]
        for one in part:
            if one["late"] and chance.random() < 0.5:
                one["late"] = Lateness.TOO_LATE
        publish(spine, part)
        for product in PRODUCTS:
            number = partition_number(product, spine.partitions)
            event_us = START + at * 1000
            imbalance = chance.choice([None, chance.randint(-(10**8), 10**8)])
            bid = chance.randint(1, 10**12)
            quote = quote_message(product, bid, bid + chance.randint(1, 999), event_us, imbalance)
            levels = [(chance.randint(1, 10**12), chance.randint(0, 10**9)) for _ in range(5)]
            book = pack_book(
                product=product,
                kind=BookKind.SNAPSHOT if at == 0 else BookKind.UPDATE,
                exchange=Exchange.COINBASE,
                event_us=event_us,
                received_us=event_us + 5,
                first_update_id=first + at,
                last_update_id=first + at + 4,
                bids=levels[: chance.randint(0, 3)],
                asks=levels[3:],
            )
            spine.publish({Partition(QUOTES, number): [quote], Partition(BOOK, number): [book]})


def publish_numbered(spine: Spine, first: int, count: int) -> None:
    """Trades with consecutive ids from `first` on, the products in turn."""
    publish(
        spine,
        [
            trade(PRODUCTS[number % len(PRODUCTS)], number // len(PRODUCTS) + 1, START + number * 1000)
            for number in range(first, first + count)
        ],
    )


def batches_of_log(spine: Spine, partition: Partition) -> Iterator[Batch]:
    """All messages of a partition: one read ends after 64 MiB."""
    at = 0
    while (batch := spine.read(partition, at, 10**9)).payloads:
        yield batch
        at = batch.next_offset


def rows_of_log(spine: Spine, topic: str) -> pa.Table:
    """What the table of a topic has to hold by what the log says, `too_late` aside, in the log's order."""
    table, to_rows = ROWS[topic]
    parts = [table.schema.empty_table()]
    for number in range(spine.partitions):
        partition = Partition(topic, number)
        parts += [to_rows(batch, partition) for batch in batches_of_log(spine, partition)]
    return in_order(pa.concat_tables(parts).replace_schema_metadata(None))


def in_order(rows: pa.Table) -> pa.Table:
    """Rows in the order of the log; books also by level."""
    keys = ["spine_partition", "spine_offset", *(["level"] if "level" in rows.column_names else [])]
    return rows.sort_by([(key, "ascending") for key in keys]).combine_chunks()


def rows_in_fluss(target: FlussTarget, topic: str) -> pa.Table:
    """All rows of a log of Fluss as they are there, repeated ones too, in the order of the spine."""

    async def read() -> pa.Table:
        connection = await connect(target)
        table = await connection.get_table(path_of(target, topic))
        scanner = await table.new_scan().create_record_batch_log_scanner()
        scanner.subscribe_buckets(dict.fromkeys(range(target.buckets), fluss.EARLIEST_OFFSET))
        return await asyncio.wait_for(scanner.to_arrow(), 60)

    rows = asyncio.run(read())
    return in_order(rows.cast(COLUMNS[topic].remove_metadata()).replace_schema_metadata(None))


def distinct(rows: pa.Table) -> pa.Table:
    """Rows with those that are equal in every column only once; sorted as `in_order` does."""
    return in_order(rows.group_by(rows.column_names).aggregate([]))


def check_nothing_is_missing(spine: Spine, target: FlussTarget) -> int:
    """Compare every log of Fluss with the spine, repeated rows aside; return how many were repeated."""
    repeated = 0
    for topic in TOPICS:
        wanted = rows_of_log(spine, topic)
        found = rows_in_fluss(target, topic).select(wanted.column_names)
        once = distinct(found)
        assert once.num_rows == wanted.num_rows, f"{topic}: {once.num_rows} of {wanted.num_rows} rows"
        assert once.equals(wanted), f"{topic} differs"
        repeated += found.num_rows - once.num_rows
    return repeated


@dataclass
class Holdings:
    """An `Archived` whose archive holds what the test says: all before `frontiers`, without `lacking`."""

    frontiers: dict[Partition, int]
    lacking: dict[Partition, tuple[int, int]]
    every: int = 1
    """Of what it lacks each second one is lacking, or each third, …"""
    refreshed: int = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def frontier(self, partition: Partition) -> int:
        first = self.lacking.get(partition, (10**18, 0))[0]
        return min(self.frontiers.get(partition, 0), first)

    def reached(self, partition: Partition) -> int:
        return 0

    def holes(self, partition: Partition, end: int) -> list[tuple[int, int]]:
        first, last = self.lacking.get(partition, (0, -1))
        found = (
            [(first, last)] if self.every == 1 else [(at, at) for at in range(first, last + 1, self.every)]
        )
        found = [one for one in found if one[0] <= one[1]]
        held = self.frontiers.get(partition, 0)
        return found + ([(held, end - 1)] if held < end else [])


class FlussSide(NamedTuple):
    """What a bridge has on the side of Fluss."""

    runner: asyncio.Runner
    current: CurrentTable


@contextmanager
def fluss_side(target: FlussTarget) -> Iterator[FlussSide]:
    with event_loop() as runner, CurrentTable.kept(target) as current:
        yield FlussSide(runner, current)


def bridge(
    spine: Spine,
    target: FlussTarget,
    side: FlussSide,
    archived: Archived | None = None,
    *,
    grace_seconds: float = 30.0,
    known_ends: KnownEnds | None = None,
) -> BridgeStage:
    """A bridge that compares all the time."""
    return BridgeStage(
        spine,
        archived or CommittedByArchive(spine),
        lambda: FlussWriter.open(side.runner, target),
        side.current,
        compare_seconds=0.0,
        grace_seconds=grace_seconds,
        known_ends=known_ends,
    )


def push_all(stage: BridgeStage) -> None:
    """Step to the end of the log."""
    while stage.step().messages:
        pass


def compare_anew(stage: BridgeStage) -> None:
    """Step until a comparison that began after now has been taken in."""
    for _ in range(2):
        before = REGISTRY.get_sample_value("lakehouse_bridge_comparisons_total")
        while REGISTRY.get_sample_value("lakehouse_bridge_comparisons_total") == before:
            stage.step()
            time.sleep(0.001)


def push_patiently(stage: BridgeStage, seconds: float) -> list[str]:
    """Step to the end of the log as the worker does, past errors; return what they said."""
    deadline = time.monotonic() + seconds
    problems = []
    while True:
        try:
            if not stage.step().messages and not any(stage.lag().values()):
                return problems
        except FlussStoreError as error:
            problems.append(str(error))
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {problems[-3:]}"
            time.sleep(0.5)
