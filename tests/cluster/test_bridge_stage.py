"""The bridge: every message of the log as rows in Fluss, from the archive's frontier on, holes filled."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge_world import (
    FlussSide,
    Holdings,
    bridge,
    check_nothing_is_missing,
    compare_anew,
    drop,
    fluss_side,
    own_tables,
    publish_market,
    publish_numbered,
    push_all,
    push_patiently,
    rows_in_fluss,
    rows_of_log,
)
from log_messages import publish_in_batches, trade
from prometheus_client import REGISTRY
from running_cluster import RunningCluster

from lakehouse.home import Home
from lakehouse.market.trade import Lateness
from lakehouse.stores.fluss_connection import FlussTarget, FlussUnavailableError
from lakehouse.stores.fluss_writer import FlussWriter, Sent
from streaming.engines.embedded.decode import MalformedMessageError
from streaming.engines.fluss import bridge as bridging
from streaming.engines.fluss.bridge import BridgeStage
from streaming.engines.fluss.known_ends import KnownEnds
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import ARCHIVE, BRIDGE, TRADES


@pytest.fixture
def target(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlussTarget]:
    with own_tables(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def spine(tmp_path: Path) -> Iterator[SqliteSpine]:
    with SqliteSpine.open(Home(tmp_path, "simulated").create().spine) as opened:
        yield opened


@pytest.fixture
def side(target: FlussTarget) -> Iterator[FlussSide]:
    with fluss_side(target) as made:
        yield made


def everything(spine: SqliteSpine) -> dict[Partition, int]:
    """An archive that holds all of the log."""
    topics = ("trades", "quotes", "book")
    return {Partition(topic, n): spine.end(Partition(topic, n)) for topic in topics for n in range(3)}


def fullest(spine: SqliteSpine) -> list[Partition]:
    """The two partitions with the most trades."""
    trades = [Partition(TRADES, number) for number in range(3)]
    return sorted(trades, key=spine.end, reverse=True)[:2]


@pytest.mark.parametrize("limit", [7, 20_000])
def test_rows_in_fluss_equal_rows_decoded_from_the_log(
    target: FlussTarget,
    spine: SqliteSpine,
    side: FlussSide,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridging, "MESSAGES_PER_PARTITION", limit)
    publish_market(spine, 1, 200 if limit < 100 else 5_000)
    stage = bridge(spine, target, side)
    assert sum(stage.lag().values()) == sum(everything(spine).values())
    push_all(stage)
    assert set(stage.lag().values()) == {0}
    for topic in ("trades", "quotes", "book"):
        found = rows_in_fluss(target, topic)
        assert found.num_rows > 0
        wanted = rows_of_log(spine, topic)
        assert found.select(wanted.column_names).equals(wanted)
    newest = rows_of_log(spine, "trades").group_by("product").aggregate([("trade_id", "max")])
    assert set(stage.newest_us()) == set(newest["product"].to_pylist())


def test_trades_after_the_horizon_say_so(target: FlussTarget, spine: SqliteSpine, side: FlussSide) -> None:
    lateness = [Lateness.IN_TIME, Lateness.LATE, Lateness.TOO_LATE, Lateness.IN_TIME]
    made = [trade("BTC-USD", number, 10**15, late=late) for number, late in enumerate(lateness, 1)]
    publish_in_batches(spine, made, 4)
    assert bridge(spine, target, side).step().too_late == 1
    found = rows_in_fluss(target, "trades").sort_by("trade_id")
    assert found["too_late"].to_pylist() == [False, False, True, False]
    assert found["late"].to_pylist() == [False, True, True, False]


def test_a_new_bridge_begins_where_the_archive_ends(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_numbered(spine, 0, 300)
    push_all(bridge(spine, target, side))
    frontiers = {partition: end * 2 // 3 for partition, end in everything(spine).items()}
    stage = bridge(spine, target, side, Holdings(frontiers, {}))
    assert sum(stage.lag().values()) == 300 - sum(frontiers.values())
    publish_numbered(spine, 300, 3)
    push_all(stage)
    assert check_nothing_is_missing(spine, target) == 300 - sum(frontiers.values())


def test_the_log_is_freed_by_what_is_archived_and_by_nothing_else(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_numbered(spine, 0, 300)
    full, holed = fullest(spine)
    archive = Holdings({full: 10, holed: 20}, {holed: (4, 6)})
    stage = bridge(spine, target, side, archive)
    push_all(stage)
    stage.close()
    assert [spine.committed(BRIDGE, partition) for partition in (full, holed)] == [10, 4]
    archive.lacking.clear()
    stage.close()
    assert [spine.committed(BRIDGE, partition) for partition in (full, holed)] == [10, 20]


def test_with_the_embedded_engine_the_archive_stage_says_what_is_archived(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_numbered(spine, 0, 30)
    archived, other = fullest(spine)
    spine.commit(ARCHIVE, {archived: 7})
    stage = bridge(spine, target, side)
    push_all(stage)
    stage.close()
    assert rows_in_fluss(target, "trades").num_rows == 30 - 7
    assert [spine.committed(BRIDGE, partition) for partition in (archived, other)] == [7, 0]


def test_what_flink_passed_by_is_pushed_again_counted_and_then_well(
    target: FlussTarget,
    spine: SqliteSpine,
    side: FlussSide,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridging, "MESSAGES_PER_PARTITION", 3)
    publish_numbered(spine, 0, 60)
    push_all(bridge(spine, target, side))
    partition, _ = fullest(spine)
    archive = Holdings(everything(spine), {})
    stage = bridge(spine, target, side, archive, grace_seconds=3.0)
    compare_anew(stage)
    before, repushed = rows_in_fluss(target, "trades").num_rows, metric("repushed_messages_total")
    archive.lacking[partition] = (2, 9)
    compare_anew(stage)
    assert metric("missing_messages") == 0  # it may be on its way
    time.sleep(3.1)
    compare_anew(stage)
    assert metric("missing_messages") == 8
    while stage.step().behind:
        pass
    assert metric("repushed_messages_total") == repushed + 8
    assert rows_in_fluss(target, "trades").num_rows == before + 8
    del archive.lacking[partition]
    compare_anew(stage)
    assert metric("missing_messages") == 0
    assert check_nothing_is_missing(spine, target) == 8


def test_many_holes_are_filled_at_once(target: FlussTarget, spine: SqliteSpine, side: FlussSide) -> None:
    publish_numbered(spine, 0, 600)
    push_all(bridge(spine, target, side))
    partition, other = fullest(spine)
    archive = Holdings(everything(spine), {})
    stage = bridge(spine, target, side, archive, grace_seconds=0.1)
    compare_anew(stage)
    before = rows_in_fluss(target, TRADES).num_rows
    archive.lacking = {partition: (2, 9), other: (0, 3)}
    archive.every = 2
    time.sleep(0.2)
    behind = []
    while behind[-1:] != [False] or True not in behind:
        behind.append(stage.step().behind)
    assert behind.count(True) == 1  # one partition in a step, and the other in the next
    assert rows_in_fluss(target, TRADES).num_rows == before + 4 + 2
    archive.lacking.clear()
    assert check_nothing_is_missing(spine, target) == 4 + 2


def metric(name: str, labels: dict[str, str] | None = None) -> float:
    labels = {"topic": TRADES} if labels is None else labels
    return REGISTRY.get_sample_value(f"lakehouse_bridge_{name}", labels) or 0.0


def test_after_an_error_it_goes_on_on_a_new_connection_and_leaves_nothing_out(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    writers: list[FlussWriter] = []

    def connect() -> FlussWriter:
        writers.append(FlussWriter.open(side.runner, target))
        return writers[-1]

    archive = Holdings({}, {})
    stage = BridgeStage(spine, archive, connect, side.current, compare_seconds=60, grace_seconds=60)
    publish_numbered(spine, 0, 300)
    push_all(stage)
    working = writers[0].acknowledged

    def failing(sent: Sent, *, within_seconds: float) -> bool:
        while not working(sent, within_seconds=within_seconds):
            pass
        raise FlussUnavailableError("acknowledged, and nobody was told")

    publish_numbered(spine, 300, 30)
    writers[0].acknowledged = failing  # type: ignore[method-assign]
    with pytest.raises(FlussUnavailableError):
        stage.step()
    assert sum(stage.lag().values()) == 30
    publish_numbered(spine, 330, 30)
    push_all(stage)
    assert len(writers) == 2
    assert check_nothing_is_missing(spine, target) == 30
    assert archive.refreshed < 3  # it didn't go back to the frontier: nothing was lost


def test_when_fluss_lost_rows_all_is_pushed_again_from_the_frontier_on(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    shorter = metric("shorter_logs_total", {})
    publish_numbered(spine, 0, 300)
    archive = Holdings(dict.fromkeys(fullest(spine), 5), {})
    stage = bridge(spine, target, side, archive)
    push_all(stage)
    drop(target)
    publish_numbered(spine, 300, 30)
    assert push_patiently(stage, 60)
    assert rows_in_fluss(target, "trades").num_rows == 330 - 10
    assert metric("shorter_logs_total", {}) == shorter + 1


def test_logs_that_lost_rows_are_filled_up_even_if_the_bridge_died_with_them(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide, tmp_path: Path
) -> None:
    publish_market(spine, 3, 2_000)
    file = tmp_path / "ends.json"
    push_all(bridge(spine, target, side, known_ends=KnownEnds(file)))
    writer = FlussWriter.open(side.runner, target)
    before = writer.ends()
    longer = {key: end + 30 for key, end in before.items() if end}  # as if so much had been lost
    KnownEnds(file).remember(longer, writer.table_ids)
    shorter = metric("shorter_logs_total", {})
    stage = bridge(spine, target, side, Holdings(everything(spine), {}), known_ends=KnownEnds(file))
    assert set(stage.lag().values()) == {0}
    stage.step()
    assert metric("shorter_logs_total", {}) == shorter + 1
    after = writer.ends()
    assert all(after[key] >= end for key, end in longer.items())
    assert check_nothing_is_missing(spine, target) == sum(after.values()) - sum(before.values())
    assert KnownEnds(file).lost(before, writer.table_ids) == {key: after[key] - before[key] for key in longer}


def test_a_malformed_message_is_pointed_at_and_passed_by_never(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_numbered(spine, 0, 6)
    spine.publish({Partition("quotes", 1): [b"nonsense"]})
    stage = bridge(spine, target, side)
    for _ in range(2):
        with pytest.raises(MalformedMessageError, match="message 0 of quotes/1"):
            stage.step()
    assert stage.lag()[Partition("quotes", 1)] == 1


def test_what_was_sent_before_a_malformed_message_counts_and_is_sent_once(
    target: FlussTarget, spine: SqliteSpine, side: FlussSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridging, "MESSAGES_PER_PARTITION", 2)
    monkeypatch.setattr(bridging, "STEP_SECONDS", 60.0)
    publish_numbered(spine, 0, 60)
    partition, _ = fullest(spine)
    spine.publish({partition: [b"nonsense"]})
    sent = spine.end(partition) - 1
    stage = bridge(spine, target, side)
    for _ in range(2):
        with pytest.raises(MalformedMessageError, match=f"message {sent} of trades"):
            stage.step()
        assert stage.lag()[partition] == 1 + sent % 2
    assert rows_in_fluss(target, TRADES).num_rows == 60 - sent % 2
