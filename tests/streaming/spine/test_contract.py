"""What every spine promises, whichever implements it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds_of_log import IggyLog, Log, SqliteLog

from lakehouse.market.time import now_us
from streaming.spine.contract import (
    OffsetAheadError,
    OffsetExpiredError,
    Partition,
    Spine,
    SpineError,
    partition_number,
)
from streaming.spine.topics import TRADES

TRADES_0, TRADES_1 = Partition(TRADES, 0), Partition(TRADES, 1)

LONG = 64 * 2**10
"""Length of the messages of the tests of retention: some make a run in any log."""

ALL_AGES = -60_000_000
"""An age that every message has, even by a clock that is ahead."""

OpenSpine = Callable[[], Spine]


@pytest.fixture(params=["sqlite", "iggy"])
def new_log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Log]:
    """Makes empty logs of one kind."""
    if request.param == "iggy":
        address = request.getfixturevalue("iggy_address")
        return lambda: IggyLog(address)
    return lambda: SqliteLog(tmp_path_factory.mktemp("spine"))


@pytest.fixture
def log(new_log: Callable[[], Log]) -> Iterator[Log]:
    made = new_log()
    yield made
    made.delete()


@pytest.fixture
def open_spine(log: Log) -> Iterator[OpenSpine]:
    """Opens the same log again and again, as processes that restart do."""
    opened: list[Spine] = []

    def open_again() -> Spine:
        spine = log.open()
        opened.append(spine)
        return spine

    yield open_again
    for spine in opened:
        spine.close()


def everything(spine: Spine, partition: Partition, step: int = 1000) -> list[bytes]:
    messages: list[bytes] = []
    offset = spine.start(partition)
    while (batch := spine.read(partition, offset, step)).payloads:
        assert batch.first_offset == offset
        assert len(batch.published_us) == len(batch.payloads)
        messages += batch.payloads
        offset = batch.next_offset
    return messages


def long_messages(count: int) -> list[bytes]:
    return [b"%d" % i + bytes(LONG) for i in range(count)]


def test_offsets_are_consecutive_from_zero_and_survive_reopening(open_spine: OpenSpine) -> None:
    spine = open_spine()
    assert spine.publish({TRADES_0: [b"a", b"b"], TRADES_1: [b"x"]}) == {TRADES_0: 0, TRADES_1: 0}
    spine.close()
    spine = open_spine()
    assert spine.publish({TRADES_0: [b"c"], TRADES_1: []}) == {TRADES_0: 2, TRADES_1: 1}
    assert everything(spine, TRADES_0) == [b"a", b"b", b"c"]
    assert spine.end(TRADES_1) == 1
    assert spine.end(Partition(TRADES, 2)) == 0


def test_settled_ends_are_where_a_publisher_goes_on(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"a", b"b"], TRADES_1: [b"x"]})
    ends = spine.settled_ends([TRADES_0, TRADES_1, Partition(TRADES, 2)])
    assert ends == {TRADES_0: 2, TRADES_1: 1, Partition(TRADES, 2): 0}
    assert spine.publish({TRADES_1: [b"y"]}) == {TRADES_1: 1}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.binary(min_size=1, max_size=40), max_size=30), max_size=12),
    step=st.integers(1, 17),
    retained=st.integers(0, 400),
)
def test_any_batching_reads_back_as_published(
    batches: list[list[bytes]], step: int, retained: int, new_log: Callable[[], Log]
) -> None:
    log = new_log()
    with log.open() as spine:
        published: list[bytes] = []
        for batch in batches:
            assert spine.publish({TRADES_0: batch}) == {TRADES_0: len(published)}
            published += batch
        assert everything(spine, TRADES_0, step) == published
        for offset in range(len(published) + 1):
            assert list(spine.read(TRADES_0, offset, step).payloads) == published[offset : offset + step]
        safe = min(retained, len(published))
        spine.commit("g", {TRADES_0: safe})
        spine.retain({TRADES: ["g"]}, max_age_us=ALL_AGES, max_bytes=0)
        assert spine.start(TRADES_0) <= safe
        assert everything(spine, TRADES_0, step) == published[spine.start(TRADES_0) :]
        assert spine.publish({TRADES_0: [b"next"]}) == {TRADES_0: len(published)}
    log.delete()


def test_reading_at_the_end_returns_nothing_and_beyond_it_is_an_error(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"a"]})
    assert not spine.read(TRADES_0, 1, 10).payloads
    assert not spine.read(TRADES_1, 0, 10).payloads
    for partition, offset in ((TRADES_0, 2), (TRADES_1, 1)):
        with pytest.raises(OffsetAheadError, match="truncated or replaced"):
            spine.read(partition, offset, 10)


def test_publishing_times_are_now_and_never_decrease(open_spine: OpenSpine) -> None:
    spine = open_spine()
    before = now_us()
    for _ in range(50):
        spine.publish({TRADES_0: [b"m", b"n"]})
    times = list(spine.read(TRADES_0, 0, 100).published_us)
    assert times == sorted(times)
    assert before - 1_000_000 <= times[0] <= times[-1] <= now_us() + 1_000_000


def test_messages_of_all_lengths_come_back(open_spine: OpenSpine) -> None:
    spine = open_spine()
    messages = [bytes([i]) * length for i, length in enumerate((1, 9_000_000, 2, 1000, 30_000_000, 3))]
    messages += [b"%d" % i for i in range(25_000)]
    messages += [bytes(40_000_000), b"last"]
    assert spine.publish({TRADES_0: messages}) == {TRADES_0: 0}
    found: list[bytes] = []
    while len(found) < len(messages):
        batch = spine.read(TRADES_0, len(found), 100_000)
        assert sum(map(len, batch.payloads[:-1])) <= 128 * 2**20, "a read that no memory is made for"
        found += batch.payloads
    assert found == messages


def test_committed_offsets_belong_to_a_group_and_survive(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"m"] * 7, TRADES_1: [b"m"]})
    assert spine.committed("archive", TRADES_0) is None
    spine.commit("archive", {TRADES_0: 5})
    spine.commit("archive", {TRADES_0: 7, TRADES_1: 1})
    spine.close()
    spine = open_spine()
    assert spine.committed("archive", TRADES_0) == 7
    assert spine.committed("archive", TRADES_1) == 1
    assert spine.committed("hot", TRADES_0) is None
    spine.commit("archive", {TRADES_0: 2})  # a table that was restored is read into again
    assert spine.committed("archive", TRADES_0) == 2
    spine.commit("archive", {TRADES_0: 0})
    assert not spine.committed("archive", TRADES_0)


def test_committing_beyond_the_end_is_an_error(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"m"] * 3})
    for partition, offset in ((TRADES_0, 4), (TRADES_1, 1)):
        with pytest.raises(OffsetAheadError, match="truncated or replaced"):
            spine.commit("archive", {partition: offset})
        assert spine.committed("archive", partition) is None


def test_retention_never_drops_what_a_group_has_not_committed(open_spine: OpenSpine, log: Log) -> None:
    spine = open_spine()
    for message in long_messages(100):
        spine.publish({TRADES_0: [message]})
    readers = {TRADES: ["hot", "archive"]}
    assert spine.retain(readers, max_age_us=ALL_AGES, max_bytes=0) == 0  # nobody has committed
    spine.commit("hot", {TRADES_0: 100})
    assert spine.retain(readers, max_age_us=ALL_AGES, max_bytes=0) == 0  # one has not
    spine.commit("archive", {TRADES_0: 40})
    start = spine.retain(readers, max_age_us=ALL_AGES, max_bytes=0)
    assert 40 - log.run_bytes // LONG <= start <= 40
    assert spine.start(TRADES_0) == start > 0
    with pytest.raises(OffsetExpiredError) as caught:
        spine.read(TRADES_0, start - 1, 1)
    assert caught.value.earliest == start
    assert everything(spine, TRADES_0) == long_messages(100)[start:]
    spine.commit("archive", {TRADES_0: 90})
    assert spine.retain(readers, max_age_us=ALL_AGES, max_bytes=0) == spine.start(TRADES_0) - start
    assert 90 - log.run_bytes // LONG <= spine.start(TRADES_0) <= 90


def test_retention_keeps_young_messages_within_the_size(open_spine: OpenSpine, log: Log) -> None:
    spine = open_spine()
    for message in long_messages(100):
        spine.publish({TRADES_0: [message]})
    spine.commit("g", {TRADES_0: 100})
    assert spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=110 * LONG) == 0
    dropped = spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=50 * LONG)
    assert 50 <= dropped <= 51 + log.run_bytes // LONG
    assert spine.start(TRADES_0) == dropped


def test_retention_drops_old_messages_only(open_spine: OpenSpine, log: Log) -> None:
    spine = open_spine()
    for i, message in enumerate(long_messages(100)):
        if i == 50:
            time.sleep(1)
        spine.publish({TRADES_0: [message]})
    spine.commit("g", {TRADES_0: 100})
    young = spine.read(TRADES_0, 50, 1).published_us[0]
    dropped = spine.retain({TRADES: ["g"]}, max_age_us=now_us() - young + 500_000, max_bytes=200 * LONG)
    assert 50 - log.run_bytes // LONG <= dropped <= 50
    assert spine.start(TRADES_0) == dropped


def test_a_group_that_reads_no_more_holds_nothing(open_spine: OpenSpine) -> None:
    spine = open_spine()
    for message in long_messages(100):
        spine.publish({TRADES_0: [message]})
    spine.commit("candles", {TRADES_0: 1})
    spine.commit("bridge", {TRADES_0: 100})
    assert spine.retain({TRADES: ["candles", "bridge"]}, max_age_us=ALL_AGES, max_bytes=0) <= 1
    assert spine.retain({TRADES: ["bridge"]}, max_age_us=ALL_AGES, max_bytes=0) > 50


def test_retention_of_one_topic_leaves_the_others_alone(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: long_messages(100)})
    spine.commit("hot", {TRADES_0: 100})
    assert spine.retain({"replay": ("replay",)}, max_age_us=ALL_AGES, max_bytes=0) == 0
    assert spine.start(TRADES_0) == 0
    assert spine.committed("hot", TRADES_0) == 100


def test_an_emptied_partition_goes_on_where_it_ended(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: long_messages(100)})
    spine.commit("g", {TRADES_0: 100})
    assert spine.retain({TRADES: ["g"]}, max_age_us=ALL_AGES, max_bytes=0) > 0
    spine.close()
    spine = open_spine()
    assert spine.end(TRADES_0) == 100
    assert not spine.read(TRADES_0, 100, 1).payloads
    assert spine.publish({TRADES_0: [b"c"]}) == {TRADES_0: 100}
    assert spine.read(TRADES_0, 100, 10).payloads == [b"c"]


def test_an_unknown_partition_and_another_partition_count_are_refused(
    open_spine: OpenSpine, log: Log
) -> None:
    spine = open_spine()
    for partition in (Partition("trades; DROP TABLE log", 0), Partition(TRADES, 3)):
        with pytest.raises(SpineError, match="no partition"):
            spine.publish({TRADES_0: [b"x"], partition: [b"x"]})
        for use in (
            spine.start,
            spine.end,
            lambda p: spine.read(p, 0, 1),
            lambda p: spine.commit("g", {p: 0}),
        ):
            with pytest.raises(SpineError, match="no partition"):
                use(partition)
    assert spine.end(TRADES_0) == 0
    with pytest.raises(SpineError, match="LAKEHOUSE_SPINE_PARTITIONS=3"):
        log.open(partitions=5)


def test_a_closed_log_says_so(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.close()
    spine.close()
    with pytest.raises(SpineError, match="closed"):
        spine.end(TRADES_0)


def test_readers_follow_a_publisher_in_another_thread(open_spine: OpenSpine) -> None:
    publisher, reader = open_spine(), open_spine()
    wanted = [b"%d" % i for i in range(5000)]

    def publish() -> None:
        for i in range(0, len(wanted), 7):
            publisher.publish({TRADES_0: wanted[i : i + 7]})

    thread = threading.Thread(target=publish)
    thread.start()
    seen: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(seen) < len(wanted) and time.monotonic() < deadline:
        seen += reader.read(TRADES_0, len(seen), 100).payloads
    thread.join()
    assert seen == wanted


def test_threads_share_a_spine(open_spine: OpenSpine) -> None:
    spine = open_spine()
    partitions = [Partition(TRADES, number) for number in range(3)]
    wanted = [b"%d" % i for i in range(600)]

    def publish(partition: Partition) -> None:
        for i in range(0, len(wanted), 4):
            assert spine.publish({partition: wanted[i : i + 4]}) == {partition: i}

    threads = [threading.Thread(target=publish, args=(partition,)) for partition in partitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [everything(spine, partition) for partition in partitions] == [wanted] * 3


def test_kill_9_of_a_publisher_loses_nothing_it_was_told_is_durable(log: Log) -> None:
    script = log.opener() + textwrap.dedent(
        """
        from streaming.spine.contract import Partition
        number = spine.end(Partition("trades", 0))
        behind = spine.end(Partition("trades", 1))
        assert behind <= number, "a batch is taken in its order"
        spine.publish({Partition("trades", 1): [b"%d" % i for i in range(behind, number)]})
        while True:
            batch = [b"%d" % (number + i) for i in range(20)]
            spine.publish({Partition("trades", 0): batch, Partition("trades", 1): batch})
            number += 20
            print(number, flush=True)
        """
    )
    with log.open() as spine:
        for wait in (0.05, 0.11, 0.17):
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[3],
            )
            assert process.stdout is not None
            assert process.stdout.readline()
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = [int(line) for line in process.stdout.read().split() if line]
            process.wait()
            for partition in (TRADES_0, TRADES_1):
                messages = everything(spine, partition)
                assert messages == [b"%d" % i for i in range(len(messages))]
                assert len(messages) >= max(acknowledged, default=0)


def test_a_product_goes_to_the_partition_of_its_crc32() -> None:
    assert partition_number("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32's definition
    assert {partition_number(f"A{i}-USD", 3) for i in range(50)} == {0, 1, 2}
