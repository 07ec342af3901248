"""Open minutes: a pure function of the log, whatever the batches, the commits and the restarts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_candles import COMPARED, MINUTE, from_rows, reference
from trade_sets import START, columns, trade_lists

from lakehouse.candles.minute import to_table
from lakehouse.candles.open_minutes import Added, OpenMinutes, StateError

LATENESS = 60_000_000

Table = dict[tuple[str, int], dict[str, Any]]


def committed(minutes: OpenMinutes, table: Table, position: int) -> str:
    """Write what changed into a table as Paimon does, and return the state saved with it."""
    rows = from_rows(to_table(*minutes.changed()).to_pylist())
    for key, row in rows.items():
        assert key not in table or table[key]["trade_count"] <= row["trade_count"]
        table[key] = row
    saved = minutes.saved({0: position})
    minutes.settle()
    return saved


def run(log: list[dict[str, Any]], cuts: list[int], commits: set[int], crashes: set[int]) -> Table:
    """The table after a log read in batches that end at `cuts`, some committed, some followed by a crash."""
    table: Table = {}
    minutes, position, saved = OpenMinutes(LATENESS), 0, None
    crashes = set(crashes)
    while position < len(log):
        end = min((cut for cut in cuts if cut > position), default=len(log))
        minutes.add(columns(log[position:end]))
        position = end
        if position in commits or position == len(log):
            saved = committed(minutes, table, position)
        if position in crashes:
            crashes.remove(position)
            minutes, position = OpenMinutes(LATENESS), 0
            if saved is not None:
                minutes, offsets = OpenMinutes.restored(saved, LATENESS)
                position = offsets[0]
    return table


def slow(log: list[dict[str, Any]]) -> Table:
    """What counts, trade by trade; completeness from the ids known when the minute closed."""
    newest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    counted: list[dict[str, Any]] = []
    table: Table = {}
    for trade in log:
        product = trade["product"]
        end = trade["event_us"] // MINUTE * MINUTE + MINUTE
        if (product, trade["trade_id"]) not in seen and end > newest.get(product, 0) - LATENESS:
            counted.append(trade)
        seen.add((product, trade["trade_id"]))
        open_until = newest.get(product, 0) - LATENESS
        newest[product] = max(newest.get(product, 0), trade["event_us"])
        for key, candle in reference(counted, seen).items():
            if key[0] == product and key[1] + MINUTE > open_until:
                table[key] = candle
    return table


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Trades over minutes enough for some to close, with repetitions."""
    trades = draw(trade_lists(max_size=30, spread_us=5 * MINUTE))
    if draw(st.booleans()):
        trades.sort(key=lambda trade: (trade["trade_id"], trade["product"]))
    again = draw(
        st.lists(st.tuples(st.integers(0, len(trades) - 1), st.integers(0, len(trades))), max_size=8)
    )
    for which, where in again:
        trades.insert(where, trades[which])
    return trades


@settings(max_examples=200)
@given(logs(), st.data())
def test_batches_commits_and_crashes_change_nothing(log: list[dict[str, Any]], data: st.DataObject) -> None:
    places = st.sets(st.integers(1, len(log)))
    cuts = data.draw(places)
    commits, crashes = cuts & data.draw(places), cuts & data.draw(places)
    found = run(log, sorted(cuts), commits, crashes)
    assert found == run(log, [], set(), set()) == slow(log)


@given(trade_lists(spread_us=MINUTE))
def test_within_the_lateness_only_the_set_matters(trades: list[dict[str, Any]]) -> None:
    assert run(trades, [], set(), set()) == reference(trades)


def trade(trade_id: int, seconds: float, **fields: Any) -> dict[str, Any]:
    made = {"product": "BTC-USD", "trade_id": trade_id, "event_us": START + int(seconds * 1e6), "price": 100}
    return made | {"size": 5, "buy": True, "late": False, "recorded_us": START} | fields


def test_a_late_trade_within_the_horizon_raises_the_revision() -> None:
    minutes, table = OpenMinutes(LATENESS), {}
    minutes.add(columns([trade(1, 1), trade(3, 61)]))
    committed(minutes, table, 2)
    assert table["BTC-USD", START]["revision"] == 0
    assert not table["BTC-USD", START]["is_complete"]
    assert minutes.add(columns([trade(2, 59, late=True, price=90)])) == Added(0, 0)
    committed(minutes, table, 3)
    changed = table["BTC-USD", START]
    assert (changed["revision"], changed["trade_count"], changed["last_trade_id"]) == (1, 2, 2)
    assert changed["close"] == changed["low"]
    assert changed["is_complete"]


def test_a_trade_past_the_horizon_is_left_to_the_seal() -> None:
    minutes, table = OpenMinutes(LATENESS), {}
    minutes.add(columns([trade(1, 1), trade(3, 119.999999)]))
    assert minutes.add(columns([trade(2, 59)])) == Added(0, 0)
    assert minutes.add(columns([trade(5, 120), trade(4, 59), trade(5, 120)])) == Added(1, 1)
    committed(minutes, table, 6)
    assert table["BTC-USD", START]["trade_count"] == 2
    assert minutes.changed()[0].size == 0


def test_products_close_by_their_own_time() -> None:
    minutes = OpenMinutes(LATENESS)
    minutes.add(columns([trade(1, 1), trade(1, 1_000, product="ETH-USD")]))
    assert minutes.add(columns([trade(2, 2)])) == Added(0, 0)
    assert minutes.watermark_us == {"BTC-USD": START + 2_000_000, "ETH-USD": START + 1_000_000_000}


def test_what_is_kept_does_not_grow() -> None:
    minutes, table, sizes = OpenMinutes(LATENESS), {}, []
    for minute in range(200):
        minutes.add(columns([trade(10**6 * minute + 5 * i + 1, 60 * minute + i) for i in range(60)]))
        sizes.append(len(committed(minutes, table, minute)))
    assert len(table) == 200
    assert max(sizes) < 1.5 * sizes[5]
    assert len(minutes.changed()[0]) == 0
    assert set(table["BTC-USD", START]) == set(COMPARED)
    kept, _ = OpenMinutes.restored(minutes.saved({}), LATENESS)
    assert kept.add(columns([trade(199 * 10**6, 60 * 197 + 59)])).too_late == 1
    assert kept.add(columns([trade(199 * 10**6 + 2, 60 * 198 + 59)])).too_late == 0


def test_a_damaged_state_says_what_to_do() -> None:
    with pytest.raises(StateError, match="roll the table back"):
        OpenMinutes.restored("bm9uc2Vuc2U=", LATENESS)
