"""Replays are let go by their rule, and their snapshots with them; none before."""

from datetime import timedelta

import pytest
from log_messages import trade
from replay_world import DAY, DAY_START, ReplayWorld, traded

from lakehouse.market.time import DAY_US
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from streaming.replay import release as release_module
from streaming.replay.release import Kept, due
from streaming.replay.running import only_one
from streaming.replay.settings import Replay

BTC, BOTH = {"BTC-USD"}, {"BTC-USD", "ETH-USD"}


def test_a_newer_one_of_the_same_settings_or_a_week_ends_a_replay() -> None:
    now = 100 * DAY_US
    kept = {
        "2025-11-20.max.1": Kept(DAY, BTC, now - 3 * DAY_US),
        "2025-11-20.max.2": Kept(DAY, BTC, now - 2 * DAY_US),
        "2025-11-20.max.3": Kept(DAY, BTC, now - 1 * DAY_US),  # it goes on
        "2025-11-20.max.4": Kept(DAY, BOTH, now - 6 * DAY_US),
        "2025-11-20.60x.5": Kept(DAY, BTC, now - 6 * DAY_US),
        "2025-11-21.max.6": Kept(DAY, BTC, now - 5 * DAY_US),
        "2025-11-01.max.7": Kept(DAY, BTC, now - 8 * DAY_US),
        "2025-11-02.max.8": Kept(DAY, BTC, now - 8 * DAY_US),  # killed a week ago
    }
    unfinished = {"2025-11-20.max.3", "2025-11-02.max.8"}
    assert due(kept, unfinished, now) == {"2025-11-20.max.1", "2025-11-01.max.7", "2025-11-02.max.8"}


def replay_tags(world: ReplayWorld) -> set[str]:
    return {tag for tag in world.archive.tags(TRADES) if tag.startswith("replay.")}


def test_the_snapshot_is_kept_while_candles_refer_to_it(
    world: ReplayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    trades = traded(count=600)
    world.seal(trades)
    first, other = world.chosen(), world.chosen(3_000.0)
    world.run(first)
    world.run(other)
    wanted = world.replayed(first.id)
    world.seal([*trades, trade("BTC-USD", 10**7, DAY_START + 1, late=True)])
    world.archive.expire(TRADES, keep=1, grace=timedelta(0), ladder=())
    again = Replay(DAY, first.products, None, first.snapshot_id)
    assert world.run(again).finished  # its snapshot is still there
    assert world.replayed(first.id).equals(wanted)

    second = world.chosen()
    with only_one(world.home, first.id):  # one that runs stays
        world.run(second)
        assert replay_tags(world) == {first.tag, other.tag, second.tag}
    assert world.run(world.chosen(2_000.0, ("ETH-USD",))).finished
    assert first.tag not in replay_tags(world)
    assert world.replayed(first.id).num_rows == 0
    assert world.replayed(other.id).equals(wanted)
    assert world.replayed(second.id).equals(world.live())

    monkeypatch.setattr(release_module, "KEPT", timedelta(0))
    world.archive.tag(TRADES, "replay.killed-before-its-first-candle")
    last = world.chosen(products=("SOL-USD",))
    world.run(last)
    assert replay_tags(world) <= {last.tag}
    world.archive.expire(TRADES, keep=1, grace=timedelta(0), ladder=())
    assert set(world.candles.scan(REPLAY_CANDLES_1M)["replay_id"].to_pylist()) <= {last.id}
