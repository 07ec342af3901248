import asyncio
import hashlib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from listed_rest import ListedRest

from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.quarantine import Reason, RefusedError
from lakehouse.market.time import MINUTE_US, SECOND_US, day_start_us, to_datetime
from lakehouse.market.trade import Exchange, Side, Trade
from lakehouse.stores.duplicates import duplicates
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import GAPS, QUARANTINE, TRADES
from lakehouse.stores.seals import known_edges, rows_checksum, seals
from streaming.exchanges.contract import RestError
from streaming.sealing.day import SealedDay, seal_day
from streaming.sealing.due import due_of
from streaming.sealing.rows import as_array, backfilled_rows

DAY = date(2025, 6, 10)
BTC = "BTC-USD"


def made(per_day: int = 60, days: int = 3) -> list[Trade]:
    """Trades of the days around DAY, evenly spread; ids begin at 1001."""
    start = day_start_us(DAY - timedelta(days=1))
    return [
        Trade(
            BTC,
            1001 + i,
            100 * 10**8 + i,
            10**7 + i,
            Side(i % 2),
            start + i * (86_400 // per_day) * SECOND_US,
        )
        for i in range(per_day * days)
    ]


def of(day: date, trades: list[Trade]) -> list[Trade]:
    start = day_start_us(day)
    return [trade for trade in trades if start <= trade.event_us < start + 86_400 * SECOND_US]


def streamed(trades: list[Trade], offset: int = 0) -> pa.Table:
    """Rows as the archive writes them for trades that came over the socket."""
    rows = backfilled_rows(
        as_array(trades),
        BTC,
        Exchange.SIMULATED,
        as_array([])["event_us"],
        day_start_us(DAY) + 90_000 * SECOND_US,
    )
    count = len(trades)
    for name, value in (
        ("source", pa.array(["feed"] * count)),
        ("spine_partition", pa.array([0] * count, pa.int32())),
        ("spine_offset", pa.array(range(offset, offset + count), pa.int64())),
    ):
        rows = rows.set_column(rows.schema.get_field_index(name), TRADES.schema.field(name), value)
    return rows


def sealed(store: IcebergStore, rest: ListedRest | None, day: date = DAY) -> SealedDay:
    return asyncio.run(seal_day(store, rest.origin() if rest else None, BTC, day))


def ids(store: IcebergStore, day: date = DAY) -> list[int]:
    found: list[int] = store.scan(TRADES, product=BTC, day=day)["trade_id"].to_pylist()
    return found


def file_hashes(store: IcebergStore) -> list[str]:
    paths = sorted(file.file_path for file in store.data_files(TRADES))
    return [hashlib.sha256(Path(path.removeprefix("file://")).read_bytes()).hexdigest() for path in paths]


def test_a_day_never_streamed_is_fetched_whole(store: IcebergStore) -> None:
    trades = made()
    told: list[tuple[int, int]] = []
    rest = ListedRest(trades)
    result = asyncio.run(
        seal_day(store, rest.origin(), BTC, DAY, lambda asked, total: told.append((asked, total)))
    )
    rows = store.scan(TRADES, product=BTC, day=DAY)
    expected = of(DAY, trades)
    assert rows["trade_id"].to_pylist() == [trade.trade_id for trade in expected]
    assert [int(price.scaleb(8)) for price in rows["price"].to_pylist()] == [t.price for t in expected]
    assert [int(size.scaleb(8)) for size in rows["size"].to_pylist()] == [t.size for t in expected]
    assert rows["taker_side"].to_pylist() == [t.taker_side.name.lower() for t in expected]
    assert rows["event_time"].to_pylist() == [to_datetime(t.event_us) for t in expected]
    assert set(rows["source"].to_pylist()) == {"backfill"}
    assert set(rows["late"].to_pylist()) == {False}
    assert result.record.rows == result.fetched == 60
    assert (result.record.first_id, result.record.last_id) == (expected[0].trade_id, expected[-1].trade_id)
    assert seals(store) == {(BTC, DAY): result.record}
    assert [asked for asked, _ in told] == sorted(asked for asked, _ in told)
    assert told[-1] == (60, 60)
    assert store.scan(GAPS).num_rows == 0


def test_sealing_again_commits_nothing_and_leaves_the_same_bytes(store: IcebergStore) -> None:
    rest = ListedRest(made())
    first = sealed(store, rest)
    before = (store.snapshot_id(TRADES), file_hashes(store), store.properties(TRADES))
    again = sealed(store, rest)
    assert (store.snapshot_id(TRADES), file_hashes(store), store.properties(TRADES)) == before
    assert not again.committed
    assert again.record == first.record
    assert again.fetched == 0


def test_holes_are_filled_from_rest_and_late_only_where_the_minute_was_told_before(
    store: IcebergStore,
) -> None:
    trades = made(per_day=2880)  # two a minute
    today = of(DAY, trades)
    lost = {today[10].trade_id, today[200].trade_id, today[201].trade_id}
    kept = [trade for trade in today if trade.trade_id not in lost]
    store.append(TRADES, streamed(kept[:1500]), offsets={0: 1500})
    store.append(TRADES, streamed(list(reversed(kept[1500:])), 1500), offsets={0: len(kept)})
    result = sealed(store, ListedRest(trades, page=1000))
    assert ids(store) == [trade.trade_id for trade in today]
    assert result.fetched == 3
    assert result.record.streamed == len(kept)
    rows = store.scan(TRADES, product=BTC, day=DAY).to_pylist()
    late = {row["trade_id"]: row["late"] for row in rows if row["source"] == "backfill"}
    minutes = {trade.event_us // MINUTE_US for trade in kept}
    assert late == {t.trade_id: t.event_us // MINUTE_US in minutes for t in today if t.trade_id in lost}
    assert set(late.values()) == {True, False}
    (stats,) = [stats for stats in store.partitions(TRADES) if stats.day == DAY]
    assert stats.files == 1
    assert store.offsets(TRADES) == {0: len(kept)}


def test_the_checksum_does_not_depend_on_how_the_trades_came(store: IcebergStore, tmp_path: Path) -> None:
    trades = made()
    fetched = sealed(store, ListedRest(trades)).record
    rows = streamed(of(DAY, trades))
    shuffled = rows.take(pa.array([*range(30, 60), *range(30)]))
    assert fetched.checksum == rows_checksum(BTC, DAY, rows) == rows_checksum(BTC, DAY, shuffled)
    assert fetched.checksum != rows_checksum(BTC, DAY, rows.slice(1))


def test_the_checksum_is_what_its_docstring_says() -> None:
    trades = of(DAY, made())
    digest = hashlib.sha256(f"lakehouse-trades-1 {BTC} {DAY} {len(trades)}\n".encode())
    for name in ("trade_id", "event_us", "price", "size"):
        digest.update(b"".join(getattr(trade, name).to_bytes(8, "little") for trade in trades))
    digest.update(bytes(trade.taker_side for trade in trades))
    assert rows_checksum(BTC, DAY, streamed(trades)) == digest.hexdigest()


def test_what_the_exchange_does_not_have_is_recorded_once(store: IcebergStore) -> None:
    trades = made()
    rest = ListedRest(trades)
    today = of(DAY, trades)
    rest.forgotten = {today[5].trade_id, today[6].trade_id, today[59].trade_id}
    result = sealed(store, rest)
    assert list(result.unfillable) == [
        (today[5].trade_id, today[6].trade_id),
        (today[59].trade_id, today[59].trade_id),
    ]
    rows = store.scan(GAPS).to_pylist()
    assert [(r["first_trade_id"], r["last_trade_id"], r["status"], r["found_by"]) for r in rows] == [
        (today[5].trade_id, today[6].trade_id, "unfillable", "seal"),
        (today[59].trade_id, today[59].trade_id, "unfillable", "seal"),
    ]
    assert rows[0]["after"] == to_datetime(today[4].event_us)
    assert rows[0]["before"] == to_datetime(today[7].event_us)
    assert rows[1]["before"] is None
    snapshot = store.snapshot_id(GAPS)
    assert not sealed(store, rest).committed
    assert store.snapshot_id(GAPS) == snapshot


def test_a_gap_that_the_seal_fills_is_filled_in_the_table(store: IcebergStore) -> None:
    trades = made()
    today = of(DAY, trades)
    store.append(TRADES, streamed(today[:20] + today[25:]))
    gap = Gap(
        Exchange.SIMULATED,
        BTC,
        today[20].trade_id,
        today[24].trade_id,
        GapStatus.UNFILLABLE,
        FoundBy.TRADE_ID,
        0,
        0,
        day_start_us(DAY),
    )
    at = to_datetime(gap.noticed_us)
    row = {
        **{name: getattr(gap, name) for name in ("product", "first_trade_id", "last_trade_id", "detail")},
        **{"day": DAY, "status": "unfillable", "found_by": "trade_id", "after": None, "before": None},
        **{
            "exchange": "simulated",
            "noticed_at": at,
            "recorded_at": at,
            "spine_partition": 0,
            "spine_offset": 3,
        },
    }
    store.append(GAPS, pa.Table.from_pylist([row], GAPS.schema))
    assert sealed(store, ListedRest(trades)).filled == 5
    assert [r["status"] for r in store.scan(GAPS).sort_by("recorded_at").to_pylist()] == [
        "unfillable",
        "filled",
    ]
    assert sealed(store, ListedRest(trades)).filled == 0


def test_records_that_cannot_be_read_go_to_quarantine_once_and_stay_visible_as_a_gap(
    store: IcebergStore,
) -> None:
    trades = made()
    rest = ListedRest(trades)
    broken = of(DAY, trades)[8].trade_id
    rest.refused[broken] = (b'{"price": "NaN"}', RefusedError(Reason.BAD_NUMBER, "'NaN' is not finite", BTC))
    result = sealed(store, rest)
    sealed(store, rest)
    assert result.refused == 1
    assert list(result.unfillable) == [(broken, broken)]
    (row,) = store.scan(QUARANTINE).to_pylist()
    assert (row["product"], row["reason"], row["frame"]) == (BTC, "bad_number", b'{"price": "NaN"}')


def test_a_recording_is_sorted_and_its_holes_are_unfillable(store: IcebergStore) -> None:
    today = of(DAY, made())
    store.append(TRADES, streamed(list(reversed(today[:20] + today[25:50]))))
    result = sealed(store, None)
    assert ids(store) == [trade.trade_id for trade in today[:20] + today[25:50]]
    assert list(result.unfillable) == [(today[20].trade_id, today[24].trade_id)]
    assert store.scan(GAPS)["detail"].to_pylist() == ["a recording can't be asked"]
    assert known_edges(store, BTC, DAY) == []
    assert not sealed(store, None).committed


def test_a_day_without_trades_can_be_sealed(store: IcebergStore) -> None:
    trades = [trade for trade in made() if trade not in of(DAY, made())]
    # Ids have no hole where a day has no trades.
    trades = [
        Trade(t.product, 1001 + i, t.price, t.size, t.taker_side, t.event_us) for i, t in enumerate(trades)
    ]
    rest = ListedRest(trades)
    result = sealed(store, rest)
    assert (result.record.rows, result.fetched, list(result.unfillable)) == (0, 0, [])
    assert result.record.last_id < result.record.first_id
    assert not sealed(store, rest).committed


def test_the_first_day_of_a_product_starts_at_its_first_trade(store: IcebergStore) -> None:
    trades = made()
    first = DAY - timedelta(days=1)
    result = sealed(store, ListedRest(trades), first)
    assert (result.record.first_id, result.record.rows, list(result.unfillable)) == (1001, 60, [])


def test_neighbouring_days_share_their_edges_instead_of_asking_for_them(store: IcebergStore) -> None:
    trades = made()
    rest = ListedRest(trades)
    moments: list[int] = []

    async def counted(product: str, moment_us: int) -> int | None:
        moments.append(moment_us)
        return await ListedRest.trade_id_before(rest, product, moment_us)

    rest.trade_id_before = counted  # type: ignore[method-assign]
    sealed(store, rest)
    assert len(moments) == 2
    sealed(store, rest, DAY + timedelta(days=1))
    assert len(moments) == 3
    sealed(store, rest, DAY - timedelta(days=1))
    assert len(moments) == 4
    assert sorted(ids(store, DAY - timedelta(days=1)) + ids(store) + ids(store, DAY + timedelta(days=1))) == [
        trade.trade_id for trade in trades
    ]


def test_an_exchange_that_cannot_be_asked_changes_nothing(store: IcebergStore) -> None:
    trades = made()
    store.append(TRADES, streamed(of(DAY, trades)[:20]))
    rest = ListedRest(trades)
    rest.is_down = True
    before = store.snapshot_id(TRADES)
    with pytest.raises(RestError):
        sealed(store, rest)
    assert store.snapshot_id(TRADES) == before
    assert seals(store) == {}


def test_a_late_trade_after_the_seal_is_sealed_in(store: IcebergStore) -> None:
    trades = made()
    rest = ListedRest(trades)
    late = of(DAY, trades)[30]
    rest.forgotten = {late.trade_id}
    first = sealed(store, rest)
    store.append(TRADES, streamed([late]), offsets={0: 1})
    again = sealed(store, rest)
    assert again.committed
    assert (again.record.rows, again.filled) == (first.record.rows + 1, 1)
    assert ids(store) == [trade.trade_id for trade in of(DAY, trades)]


def test_what_flink_adds_of_a_sealed_day_again_is_dropped_and_counted(store: IcebergStore) -> None:
    trades = made()
    here = of(DAY, trades)
    store.append(TRADES, streamed(here[:20] + here[21:]))
    rest = ListedRest(trades)
    first = sealed(store, rest)
    assert (first.fetched, first.record.streamed) == (1, 59)
    # Flink knows what it took from the log: neither what a seal fetched, nor what its memory has let go of.
    store.append(TRADES, streamed([here[20], here[30]], offset=900))
    again = sealed(store, rest)
    assert ids(store) == [trade.trade_id for trade in here]
    assert again.committed
    assert again.record == first.record
    assert duplicates(store) == {(BTC, DAY): 2}
    assert store.scan(TRADES, product=BTC, day=DAY).filter(pc.field("spine_offset") >= 900).num_rows == 0
    assert not sealed(store, rest).committed


def test_rows_that_flink_commits_while_a_day_is_sealed_stay_and_are_sealed_next(
    store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = of(DAY, made())
    store.append(TRADES, streamed(here[:50]))
    real = IcebergStore.replace

    def replace_second(self: IcebergStore, *arguments: Any, **more: Any) -> int:
        store.append(TRADES, streamed(here[50:], offset=50))
        monkeypatch.undo()
        return real(self, *arguments, **more)

    monkeypatch.setattr(IcebergStore, "replace", replace_second)
    assert sealed(store, None).record.rows == 50
    assert sorted(ids(store)) == [trade.trade_id for trade in here]
    (due,) = due_of(store.partitions(TRADES), seals(store), day_start_us(DAY) * 2, 10, can_fetch=False)
    assert (due.product, due.day) == (BTC, DAY)
    assert sealed(store, None).record.rows == 60
    assert ids(store) == [trade.trade_id for trade in here]
