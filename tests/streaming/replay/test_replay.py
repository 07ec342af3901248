"""A replay makes the candles of its day, whatever its speed and whatever interrupts it."""

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_messages import PRODUCTS, trade
from replay_world import DAY, DAY_START, ReplayWorld, bursty, rows_of, traded
from trade_sets_of_a_day import batches, candles_of, event_order

from lakehouse.stores.iceberg import SnapshotGoneError
from lakehouse.stores.lock import AlreadyRunningError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from streaming.replay import publisher, running
from streaming.replay.archived import replay_records
from streaming.replay.clock import ExchangeClock
from streaming.replay.progress import Progress, Replayed
from streaming.replay.replaying import run
from streaming.replay.running import pause, resume
from streaming.replay.settings import Replay, ReplayError, parsed_speed
from streaming.spine.contract import Partition, partition_number
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import REPLAY


def test_a_replay_makes_the_sealed_candles(world: ReplayWorld) -> None:
    trades = traded()
    world.seal(trades)
    replay = world.chosen()
    done = world.run(replay)
    assert (done.trades, done.published, done.finished) == (len(trades), len(trades), True)
    assert world.replayed(replay.id).equals(world.live())
    assert sum(world.live()["revision"].to_pylist()) > 0
    rows = world.candles.scan(REPLAY_CANDLES_1M)
    assert set(rows["trades_snapshot_id"].to_pylist()) == {world.archive.snapshot_id(TRADES)}
    again = world.run(replay)
    assert again.published == len(trades)
    assert world.replayed(replay.id).equals(world.live())


def test_the_days_edges_are_known_and_gaps_stay_gaps(world: ReplayWorld) -> None:
    ids = [i for i in range(10, 60) if i != 33]
    out_of_step = {40: 55, 55: 40}  # five minutes apart in time
    trades = [trade("BTC-USD", out_of_step.get(i, i), DAY_START + i * 20_000_000) for i in ids]
    world.archive.append(TRADES, rows_of([trade("BTC-USD", 9, DAY_START - 1)]))
    world.archive.append(TRADES, rows_of([trade("BTC-USD", 60, DAY_START + 86_400_000_000)]))
    world.seal(trades)
    replay = world.chosen(products=("BTC-USD",))
    world.run(replay)
    complete = world.replayed(replay.id)["is_complete"].to_pylist()
    assert (complete[0], complete[-1], complete.count(False)) == (True, True, 2)  # on both sides of 33
    assert world.replayed(replay.id).equals(world.live())


@given(event_order(), st.lists(st.integers(1, 20), max_size=6), st.sets(st.sampled_from([0, 31])))
def test_in_event_order_any_trades_make_the_candles_of_a_rebuild(
    trades: list[dict[str, Any]], cuts: list[int], edges: set[int]
) -> None:
    made, rebuilt = candles_of(batches(trades, cuts), edges)
    assert made == rebuilt


def test_trades_come_in_the_exchanges_order(world: ReplayWorld) -> None:
    trades = traded(seed=2)
    trades += [
        trade(product, 10**7 - i, DAY_START + 5, price=i + 1) for product in PRODUCTS for i in range(3)
    ]
    world.seal(trades)
    records = replay_records(world.archive, world.chosen(), {})
    found = [(int(r["event_us"]), r["product"].decode(), int(r["trade_id"])) for r in records]
    assert found == sorted((t["event_us"], t["product"], t["trade_id"]) for t in trades)
    by_key = {(t["product"], t["trade_id"]): t for t in trades}
    for record in records:
        wanted = by_key[record["product"].decode(), int(record["trade_id"])]
        assert (record["price"], record["size"], record["late"]) == (
            *(wanted["price"], wanted["size"]),
            wanted["late"],
        )
        assert record["received_us"] == wanted["event_us"] + 20_000


class SlowLog(SqliteSpine):
    """Takes its time for each batch, and notes when each trade became durable, by the clock of waits."""

    published: dict[int, float]

    def publish(self, batch: Any) -> dict[Partition, int]:
        time.sleep(0.02)
        first = super().publish(batch)
        now = time.monotonic()
        for messages in batch.values():
            for message in messages:
                self.published[int.from_bytes(message[16:24], "little")] = now
        return first


def test_sixty_times_means_sixty_times_also_in_bursts(
    world: ReplayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AT_ONCE", 50)  # a burst takes the log a third of a second
    trades = bursty()
    world.seal(trades)
    records = replay_records(world.archive, world.chosen(60.0, ("BTC-USD",)), {})
    with SlowLog.open(world.home.spine) as spine:
        spine.published = {}
        publisher.Publisher(spine, records, 60.0, lambda: False).run()
    times = np.array([spine.published[i + 1] for i in range(len(trades))])
    due = np.array([(t["event_us"] - DAY_START) / 60e6 for t in trades])
    behind = times - times[0] - due
    print(
        f"behind: first {behind[1]:.4f} s, most {behind.max():.4f} s, last {behind[-1]:.4f} s of {due[-1]} s"
    )
    assert behind.min() > -0.1  # the first may itself have been late
    assert behind.max() > 0.15
    # Nothing adds up: after the bursts the last ones are as near as the first.
    assert abs(behind[-1]) < 0.1


def test_what_is_due_follows_from_the_start_alone() -> None:
    now = [100.0]
    clock = ExchangeClock(60.0, lambda: now[0])
    clock.start(DAY_START)
    assert clock.seconds_until(DAY_START + 90_000_000) == 1.5
    now[0] += 1.0
    assert clock.now_us() == DAY_START + 60_000_000
    assert clock.seconds_until(DAY_START + 90_000_000) == 0.5
    assert clock.seconds_until(DAY_START) == 0
    clock.hold()
    now[0] += 1_000.0
    clock.hold()
    assert clock.now_us() == DAY_START + 60_000_000
    clock.go()
    clock.go()
    now[0] += 0.5
    assert clock.now_us() == DAY_START + 90_000_000


def test_messages_stay_while_another_replay_may_need_them(world: ReplayWorld) -> None:
    partition = Partition(REPLAY, 0)
    with SqliteSpine.open(world.home.spine) as spine:
        spine.publish({partition: [b"message"] * 5})
        freeing = running.FreeingAlone(spine, world.home, "own")
        with running.only_one(world.home, "own"):
            with running.only_one(world.home, "another"):
                freeing.after_commit({partition: 5}, now=True)
                assert (spine.start(partition), spine.committed(REPLAY, partition)) == (0, None)
            freeing.after_commit({partition: 5}, now=True)
            assert spine.start(partition) == 5


def started(world: ReplayWorld, replay: Replay, done: list[Replayed], **how: Any) -> threading.Thread:
    """Run a replay in a thread, with tables of its own."""

    def work() -> None:
        with PaimonStore.open(world.home) as candles:
            done.append(run(world.settings, world.home, world.archive, candles, replay, **how))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_two_replays_side_by_side_do_not_mix(world: ReplayWorld) -> None:
    world.seal(traded(seed=3, minutes=10))
    slow, fast = world.chosen(400.0), world.chosen(products=("BTC-USD",))
    done: list[Replayed] = []
    thread = started(world, slow, done)
    deadline = time.monotonic() + 20
    while slow.id not in running.running(world.home):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(AlreadyRunningError):
        world.run(slow)
    world.run(fast)
    assert thread.is_alive()
    thread.join(60)
    assert [one.finished for one in done] == [True]
    assert world.replayed(slow.id).equals(world.live())
    live = world.live()
    assert world.replayed(fast.id).equals(live.filter(np.array(live["product"].to_pylist()) == "BTC-USD"))
    with SqliteSpine.open(world.home.spine) as spine:
        for number in range(spine.partitions):  # nobody needs the messages any more
            partition = Partition(REPLAY, number)
            assert spine.start(partition) == spine.end(partition)
        assert spine.end(Partition(REPLAY, partition_number("BTC-USD", 3))) > 0


def test_what_was_stopped_goes_on_at_its_own_snapshot(world: ReplayWorld) -> None:
    trades = traded(seed=4, minutes=10)
    world.seal(trades)
    replay = world.chosen(200.0)
    seen: list[Progress] = []
    first = world.run(replay, seen.append, lambda: bool(seen) and seen[-1].trades > len(trades) / 3)
    assert not first.finished
    assert 0 < first.trades < len(trades)
    wanted = world.live()
    later = max(t["trade_id"] for t in trades if t["product"] == "BTC-USD") + 1
    world.seal([*trades, trade("BTC-USD", later, DAY_START + 1, late=True)])
    again = world.chosen(200.0)
    assert again == replay
    second = world.run(again)
    assert second.finished
    assert second.published < len(trades)
    assert second.trades == len(trades)
    assert world.replayed(replay.id).equals(wanted)
    assert not wanted.equals(world.live())
    assert world.chosen(200.0) != replay  # it is done: the next one takes what the archive has now


def test_a_paused_replay_stands_still_and_keeps_its_pace_afterwards(world: ReplayWorld) -> None:
    world.seal(bursty())
    replay = world.chosen(60.0, ("BTC-USD",))
    seen: list[Progress] = []
    done: list[Replayed] = []
    with pytest.raises(ReplayError, match="none does"):
        pause(world.home, replay.id)
    thread = started(world, replay, done, on_progress=seen.append)
    deadline = time.monotonic() + 20
    while not seen or seen[-1].trades < 402:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pause(world.home, replay.id)
    while not seen[-1].paused:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    at = seen[-1].trades
    time.sleep(1.0)
    assert seen[-1].trades == at < 1_200
    resume(world.home, replay.id)
    with pytest.raises(ReplayError, match="paused"):
        resume(world.home, replay.id)
    thread.join(30)
    # Two seconds of pace, a second of pause, and no catching up of it.
    assert done[0].seconds > 2.9
    assert world.replayed(replay.id).equals(world.live())


def test_a_speed_is_a_number_or_max() -> None:
    assert (parsed_speed("max"), parsed_speed("60")) == (None, 60.0)
    for wrong in ("fast", "-1", "0", "nan", "inf"):
        with pytest.raises(ReplayError, match="write max"):
            parsed_speed(wrong)


def test_other_settings_are_another_replay_and_the_order_of_products_is_none() -> None:
    one = Replay(DAY, ("ETH-USD", "BTC-USD"), None, 7)
    assert one == Replay(DAY, ("BTC-USD", "ETH-USD"), None, 7)
    others = [
        Replay(DAY, ("BTC-USD",), None, 7),
        Replay(DAY, ("BTC-USD", "ETH-USD"), 60, 7),
        Replay(DAY, ("BTC-USD", "ETH-USD"), None, 8),
    ]
    assert len({replay.id for replay in (one, *others)}) == len({r.number for r in (one, *others)}) == 4


def test_nothing_archived_and_a_snapshot_that_is_gone_are_said(world: ReplayWorld) -> None:
    with pytest.raises(ReplayError, match="nothing is archived"):
        world.chosen()
    world.seal(traded(count=100))
    with pytest.raises(SnapshotGoneError, match="expired"):
        world.run(world.chosen(snapshot_id=12345))
