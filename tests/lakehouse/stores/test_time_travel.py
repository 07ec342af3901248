"""Tables as they stood at an earlier moment: which version held, and what expiry keeps of the past."""

import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_rows import make_candles, make_trades

from lakehouse.home import Home
from lakehouse.market.time import SECOND_US, now_us, to_iso
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.prompt import main, moment_us
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.versions import (
    LADDER,
    PastError,
    Recorded,
    Rung,
    held_tag,
    held_until,
    plan_expiry,
    version_at,
    versions,
    wanted,
)

HOUR = 3_600_000
DAY = 24 * HOUR
NO_GRACE = timedelta(0)


def ask(home: Home, statement: str, as_of_us: int | None = None) -> list[tuple[Any, ...]]:
    with sql.connect(home, as_of_us=as_of_us) as connection:
        return list(sql.run_query(connection, statement).rows)


def pause() -> int:
    """Return a moment between what was committed before and what is committed after."""
    time.sleep(0.002)
    moment = now_us()
    time.sleep(0.002)
    return moment


@given(st.integers(0, 4_000_000_000_000))
def test_a_tag_says_until_when_its_snapshot_held(until_ms: int) -> None:
    assert held_until(held_tag(until_ms)) == until_ms


@pytest.mark.parametrize("name", ["main", "candles.BTC-USD.2026-01-02", "held-until-", "held-until-tomorrow"])
def test_tags_of_others_say_nothing_of_it(name: str) -> None:
    assert held_until(name) is None


@given(
    gaps=st.lists(st.integers(1, 40 * HOUR), min_size=1, max_size=60),
    keep=st.integers(1, 5),
    asked=st.lists(st.integers(0, 90 * DAY), max_size=30),
)
def test_what_can_be_read_of_the_past_is_what_was_then(gaps: list[int], keep: int, asked: list[int]) -> None:
    """Expiry after every commit: each moment's version is the one that held, or it is refused."""
    ladder = (Rung(HOUR, 0, 2 * DAY), Rung(DAY, 2 * HOUR, 30 * DAY))
    commits: list[int] = []
    there: list[Recorded] = []
    tags: dict[str, int] = {}
    now = 0
    for number, gap in enumerate(gaps, start=1):
        now += gap
        commits.append(now)
        there.append(Recorded(number, now, number - 1 if number > 1 else None))
        readable = versions(there, {tags[name]: held_until(name) or 0 for name in tags})
        newest = {one.snapshot_id for one in there[-keep:]}
        plan = plan_expiry(readable, tags, newest, now, ladder)
        tags = {name: one for name, one in (tags | dict(plan.tag)).items() if name not in plan.untag}
        there = [one for one in there if one.snapshot_id not in plan.forget]
    assert len(there) <= keep + 49 + 31
    readable = versions(there, {tags[name]: held_until(name) or 0 for name in tags})
    marks = [
        mark
        for mark in range(commits[0] // HOUR * HOUR + HOUR, now + 1, HOUR)
        if now - mark <= 2 * DAY or (mark % DAY == 2 * HOUR and now - mark <= 30 * DAY)
    ]
    refused: list[int] = []
    for moment in [*asked, *marks]:
        truth = sum(at <= moment for at in commits)
        try:
            found = version_at("t", readable, moment * 1000)
        except PastError:
            refused.append(moment)
        else:
            assert (found.snapshot_id if found else 0) == truth
    assert not set(refused) & set(marks)


def test_the_ladder_keeps_minutes_hours_and_days() -> None:
    now = 1_000 * DAY + 17 * HOUR + 12_345
    assert wanted(now - 60_000, now - 1, now)
    assert not wanted(now - 12_000, now - 1, now)
    assert not wanted(now - 3 * HOUR + 60_000, now - 2 * HOUR - 60_000, now)
    assert wanted(now - 3 * HOUR + 60_000, now - 2 * HOUR + 60_000, now)
    two = 990 * DAY + 2 * HOUR
    assert wanted(two - 1, two, now)
    assert not wanted(two + 1, two + 4 * HOUR, now)
    assert not wanted(two - 400 * DAY, two - 390 * DAY, now)
    assert sum(rung.span_ms // rung.every_ms for rung in LADDER) <= 200


def test_every_table_is_read_as_it_stood_then(home: Home) -> None:
    before_all = now_us()
    read = "SELECT (SELECT count(*) FROM trades), (SELECT max(trade_count) FROM candles_1m)"
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        moments = []
        for n in range(1, 4):
            iceberg.append(TRADES, make_trades([n]))
            paimon.upsert(CANDLES_1M, make_candles([5], count=n))
            moments.append(pause())
        iceberg.replace(TRADES, "BTC-USD", date(2026, 1, 2), make_trades([9]))
        for store, table in ((iceberg, TRADES), (paimon, CANDLES_1M)):
            store.compact(table, fan_in=2)
    assert ask(home, read, before_all) == [(0, None)]
    assert [ask(home, read, moment) for moment in moments] == [[(n, n)] for n in (1, 2, 3)]
    assert ask(home, read) == ask(home, read, now_us()) == [(1, 3)]
    assert ask(home, "SELECT count(*) FROM candles_1m_filled", before_all) == [(0,)]
    with pytest.raises(PastError, match="future"):
        sql.connect(home, as_of_us=now_us() + 3600 * SECOND_US)


def test_what_we_knew_of_a_minute_before_and_after_a_late_trade(home: Home) -> None:
    """The query that the documentation gives."""
    text = (Path(__file__).parents[3] / "docs" / "time-travel.md").read_text()
    query = text.split('--as-of 2026-01-02T00:07:00Z "')[1].split('"')[0]
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([5, 6], count=3, price="100"))
        before = pause()
        store.upsert(CANDLES_1M, make_candles([5], count=4, price="101").set_column(*revised(1)))
    assert ask(home, query, before) == [(100, 3, 0, True)]
    assert ask(home, query, now_us()) == ask(home, query) == [(101, 4, 1, True)]


def revised(revision: int) -> tuple[int, str, pa.Array]:
    at = CANDLES_1M.schema.get_field_index("revision")
    return at, "revision", pa.array([revision], pa.int64())


class Aged:
    """A table whose commits lie apart as if time had passed, in either store."""

    def __init__(self, store: IcebergStore | PaimonStore) -> None:
        self.store = store
        self.table = TRADES if isinstance(store, IcebergStore) else CANDLES_1M

    def write_both(self) -> None:
        """Two products in one commit: what replaces the one leaves the other's file where it is."""
        if isinstance(self.store, IcebergStore):
            self.store.append(TRADES, pa.concat_tables([make_trades([1]), make_trades([1], "ETH-USD")]))
        else:
            candles = [make_candles([1]), make_candles([1], "ETH-USD")]
            self.store.upsert(CANDLES_1M, pa.concat_tables(candles))

    def write(self, number: int) -> None:
        if isinstance(self.store, IcebergStore):
            self.store.replace(TRADES, "BTC-USD", date(2026, 1, 2), make_trades([number]))
        else:
            self.store.replace(CANDLES_1M, "BTC-USD", date(2026, 1, 2), make_candles([number]))


@pytest.fixture(params=[IcebergStore, PaimonStore], ids=["iceberg", "paimon"])
def aged(request: pytest.FixtureRequest, home: Home) -> Any:
    with request.param.open(home) as store:
        yield Aged(store)


def one_mark(at_ms: int) -> tuple[Rung, ...]:
    """A ladder that keeps the state of one moment."""
    return (Rung(10**13, at_ms, 10**12),)


def test_expiry_keeps_the_state_of_a_mark_and_the_rest_is_refused_by_name(aged: Aged, home: Home) -> None:
    commits = []
    for number in range(1, 9):
        aged.write(number)
        commits.append(aged.store.versions(aged.table)[-1].since_ms)
        time.sleep(0.004)
    mark = commits[3] + 1
    result = aged.store.expire(aged.table, keep=2, grace=NO_GRACE, ladder=one_mark(mark))
    assert result.deleted_files > 0
    assert list(aged.store.tags(aged.table)) == [held_tag(commits[4] - 1)]
    column, name = ("trade_id", "trades") if aged.table is TRADES else ("first_trade_id // 10", "candles_1m")
    read = f"SELECT {column} FROM {name}"
    for moment, number in ((commits[3], 4), (mark, 4), (commits[4] - 1, 4), (commits[6], 7), (commits[7], 8)):
        assert ask(home, read, moment * 1000) == [(number,)]
    with pytest.raises(duckdb.InvalidInputException, match=f"{name} as of .* has expired: the oldest that"):
        ask(home, read, commits[2] * 1000)
    with pytest.raises(duckdb.InvalidInputException, match=f"{name} as of .* has expired: the nearest that"):
        ask(home, read, commits[5] * 1000)
    assert ask(home, "SELECT count(*) FROM gaps", commits[2] * 1000) == [(0,)]  # other tables can be read
    aged.store.expire(aged.table, keep=2, grace=NO_GRACE, ladder=())
    assert aged.store.tags(aged.table) == {}
    with pytest.raises(duckdb.InvalidInputException, match="the oldest"):
        ask(home, read, mark * 1000)
    folder = home.iceberg if aged.table is TRADES else home.paimon
    assert len(list(folder.rglob(f"{aged.table.name}/**/*.parquet"))) == 2


def test_a_pinned_reader_and_a_tag_are_left_their_files(aged: Aged, home: Home) -> None:
    aged.write_both()
    mark = aged.store.versions(aged.table)[-1].since_ms
    time.sleep(0.004)
    aged.write(2)
    aged.store.tag(aged.table, "replay.of-yesterday")
    for number in range(3, 6):
        aged.write(number)
    with sql.connect(home, as_of_us=mark * 1000) as connection:
        for _ in range(2):
            aged.store.compact(aged.table, fan_in=2)
            aged.store.expire(aged.table, keep=1, grace=NO_GRACE, ladder=one_mark(mark))
            aged.store.sweep(aged.table, grace=NO_GRACE)
        assert connection.execute(f"SELECT count(*) FROM {aged.table.name}").fetchone() == (2,)
    folder = home.iceberg if aged.table is TRADES else home.paimon
    assert len(list(folder.rglob(f"{aged.table.name}/**/*.parquet"))) == 4
    aged.store.untag(aged.table, "replay.of-yesterday")
    aged.store.expire(aged.table, keep=1, grace=NO_GRACE, ladder=())
    aged.store.expire(aged.table, keep=1, grace=NO_GRACE, ladder=())
    assert len(list(folder.rglob(f"{aged.table.name}/**/*.parquet"))) == 2
    assert aged.store.scan(aged.table).num_rows == 2


def test_the_present_of_the_hot_store_has_no_past(home: Home) -> None:
    with IcebergStore.open(home):
        pass
    with pytest.raises(duckdb.InvalidInputException, match="has no past: ask trades"):
        ask(home, "SELECT price FROM latest", now_us())


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00.000000Z"),
        ("2026-11-20T10:00:00.5+02:00", "2026-11-20T08:00:00.500000Z"),
        ("2026-11-20 10:00", "2026-11-20T10:00:00.000000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
    ],
)
def test_a_moment_without_an_offset_is_taken_for_utc_and_that_is_said(
    text: str, iso: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert to_iso(moment_us(text)) == iso
    assert ("taken for UTC" in capsys.readouterr().err) == (text[-1] != "Z" and "+" not in text)


def test_the_command_reads_the_past_and_says_what_is_wrong(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        moment = pause()
        store.append(TRADES, make_trades([2, 3]))
    monkeypatch.setenv("LAKEHOUSE_HOME", str(home.root))

    def run(as_of: str, statement: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sql", "--format", "csv", "--as-of", as_of, statement])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    assert run(to_iso(moment), "SELECT count(*) AS n FROM trades") == (0, "n\n1\n", "")
    for as_of, reason in (
        ("noon", "--as-of takes a time of ISO 8601, such as 2026-11-20T10:00:00Z, not 'noon'"),
        ("2999-01-01", "2999-01-01T00:00:00.000000Z is in the future: --as-of takes a moment that has been"),
    ):
        code, out, err = run(as_of, "SELECT 1")
        assert (code, out) == (1, "")
        assert err.endswith(f"lakehouse sql: {reason}\n")
