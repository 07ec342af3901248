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

from lakehouse.market.time import now_us
from streaming.spine.contract import (
    OffsetAheadError,
    OffsetExpiredError,
    Partition,
    Spine,
    SpineError,
    partition_number,
)
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES

TRADES_0, TRADES_1 = Partition(TRADES, 0), Partition(TRADES, 1)

OpenSpine = Callable[[], Spine]


@pytest.fixture(params=["sqlite"])
def open_spine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenSpine]:
    """Opens the same log again and again, as processes that restart do."""
    opened: list[Spine] = []

    def open_again() -> Spine:
        spine = SqliteSpine.open(tmp_path / "spine.db", partitions=3)
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


def test_offsets_are_consecutive_from_zero_and_survive_reopening(open_spine: OpenSpine) -> None:
    spine = open_spine()
    assert spine.publish({TRADES_0: [b"a", b"b"], TRADES_1: [b"x"]}) == {TRADES_0: 0, TRADES_1: 0}
    spine.close()
    spine = open_spine()
    assert spine.publish({TRADES_0: [b"c"]}) == {TRADES_0: 2}
    assert everything(spine, TRADES_0) == [b"a", b"b", b"c"]
    assert spine.end(TRADES_1) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.binary(min_size=1, max_size=40), max_size=30), max_size=12),
    step=st.integers(1, 17),
    retained=st.integers(0, 400),
)
def test_any_batching_reads_back_as_published(
    batches: list[list[bytes]], step: int, retained: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with SqliteSpine.open(tmp_path_factory.mktemp("spine") / "spine.db") as spine:
        published: list[bytes] = []
        for batch in batches:
            assert spine.publish({TRADES_0: batch}) == {TRADES_0: len(published)}
            published += batch
        assert everything(spine, TRADES_0, step) == published
        for offset in range(len(published) + 1):
            assert list(spine.read(TRADES_0, offset, step).payloads) == published[offset : offset + step]
        safe = min(retained, len(published))
        spine.commit("g", {TRADES_0: safe})
        spine.retain({TRADES: ["g"]}, max_age_us=-1_000_000, max_bytes=0)
        assert spine.start(TRADES_0) <= safe
        assert everything(spine, TRADES_0, step) == published[spine.start(TRADES_0) :]
        assert spine.publish({TRADES_0: [b"next"]}) == {TRADES_0: len(published)}


def test_reading_at_the_end_returns_nothing_and_beyond_it_is_an_error(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"a"]})
    assert not spine.read(TRADES_0, 1, 10).payloads
    with pytest.raises(OffsetAheadError, match="truncated or replaced"):
        spine.read(TRADES_0, 2, 10)


def test_publishing_times_never_decrease(open_spine: OpenSpine, monkeypatch: pytest.MonkeyPatch) -> None:
    spine = open_spine()
    for clock in (now_us(), now_us() - 3_600_000_000, now_us()):
        monkeypatch.setattr("streaming.spine.sqlite.now_us", lambda clock=clock: clock)
        spine.publish({TRADES_0: [b"m"]})
    times = list(spine.read(TRADES_0, 0, 10).published_us)
    assert times == sorted(times)


def test_committed_offsets_belong_to_a_group_and_survive(open_spine: OpenSpine) -> None:
    spine = open_spine()
    assert spine.committed("archive", TRADES_0) is None
    spine.commit("archive", {TRADES_0: 5})
    spine.commit("archive", {TRADES_0: 7, TRADES_1: 1})
    spine.close()
    spine = open_spine()
    assert spine.committed("archive", TRADES_0) == 7
    assert spine.committed("hot", TRADES_0) is None


def test_retention_never_drops_what_a_group_has_not_committed(open_spine: OpenSpine) -> None:
    spine = open_spine()
    for i in range(100):
        spine.publish({TRADES_0: [b"%d" % i]})
    readers = {TRADES: ["hot", "archive"]}
    assert spine.retain(readers, max_age_us=-1_000_000, max_bytes=0) == 0  # nobody has committed
    spine.commit("hot", {TRADES_0: 100})
    assert spine.retain(readers, max_age_us=-1_000_000, max_bytes=0) == 0  # one has not
    spine.commit("archive", {TRADES_0: 40})
    assert spine.retain(readers, max_age_us=-1_000_000, max_bytes=0) == 40
    assert spine.start(TRADES_0) == 40
    with pytest.raises(OffsetExpiredError) as caught:
        spine.read(TRADES_0, 39, 1)
    assert caught.value.earliest == 40
    assert spine.read(TRADES_0, 40, 1).payloads == [b"40"]


def test_retention_keeps_young_messages_within_the_size(open_spine: OpenSpine) -> None:
    spine = open_spine()
    for _ in range(10):
        spine.publish({TRADES_0: [b"x" * 100]})
    spine.commit("g", {TRADES_0: 10})
    assert spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=10_000) == 0
    assert spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=350) == 7


def test_an_emptied_partition_goes_on_where_it_ended(open_spine: OpenSpine) -> None:
    spine = open_spine()
    spine.publish({TRADES_0: [b"a", b"b"]})
    spine.commit("g", {TRADES_0: 2})
    spine.retain({TRADES: ["g"]}, max_age_us=-1_000_000, max_bytes=0)
    spine.close()
    spine = open_spine()
    assert (spine.start(TRADES_0), spine.end(TRADES_0)) == (2, 2)
    assert not spine.read(TRADES_0, 2, 1).payloads
    assert spine.publish({TRADES_0: [b"c"]}) == {TRADES_0: 2}


def test_an_unknown_partition_and_another_partition_count_are_refused(
    open_spine: OpenSpine, tmp_path: Path
) -> None:
    spine = open_spine()
    for partition in (Partition("trades; DROP TABLE log", 0), Partition(TRADES, 3)):
        with pytest.raises(SpineError, match="no partition"):
            spine.publish({partition: [b"x"]})
    with pytest.raises(SpineError, match="LAKEHOUSE_SPINE_PARTITIONS=3"):
        SqliteSpine.open(tmp_path / "spine.db", partitions=5)


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


def test_kill_9_of_a_publisher_loses_nothing_it_was_told_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "spine.db"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from streaming.spine.contract import Partition
        from streaming.spine.sqlite import SqliteSpine
        spine = SqliteSpine.open(Path(sys.argv[1]))
        number = spine.end(Partition("trades", 0))
        while True:
            batch = [b"%d" % (number + i) for i in range(20)]
            spine.publish({Partition("trades", 0): batch, Partition("trades", 1): batch})
            number += 20
            print(number, flush=True)
        """
    )
    for wait in (0.05, 0.11, 0.17):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = [int(line) for line in process.stdout.read().split() if line]
        process.wait()
        with SqliteSpine.open(path) as spine:
            messages = everything(spine, TRADES_0)
            assert messages == [b"%d" % i for i in range(len(messages))]
            assert everything(spine, TRADES_1) == messages  # a batch is whole
            assert len(messages) >= max(acknowledged, default=0)


def test_a_product_goes_to_the_partition_of_its_crc32() -> None:
    assert partition_number("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32's definition
    assert {partition_number(f"A{i}-USD", 3) for i in range(50)} == {0, 1, 2}
