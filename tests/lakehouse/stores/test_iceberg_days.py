"""Tables with a few rows for each product and day: partitioned by product alone, written a day at a time."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_rows import DAY, PRODUCTS, make_trades

from lakehouse.home import Home
from lakehouse.market.product import InvalidProductError
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.rows import RowsMismatchError
from lakehouse.stores.schemas import PRICE, TABLES, TRADES, Table

FIGURES: Final = Table(
    "figures",
    "iceberg",
    "A few figures a day.",
    pa.schema(
        [
            pa.field("product", pa.string(), nullable=False),
            pa.field("day", pa.date32(), nullable=False),
            pa.field("number", pa.int64(), nullable=False),
            pa.field("share", pa.float64()),
            pa.field("amount", PRICE),
        ]
    ),
    ("product", "day", "number"),
    ("product",),
)

Days = dict[date, list[tuple[int, float | None]]]

days = st.dictionaries(
    st.integers(0, 5).map(lambda back: DAY - timedelta(days=back)),
    st.lists(
        st.tuples(st.integers(0, 3), st.none() | st.floats(-1, 1)), max_size=3, unique_by=lambda r: r[0]
    ),
    min_size=1,
)


@pytest.fixture(autouse=True)
def figures_are_one_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, FIGURES.name, FIGURES)


def rows_of(product: str, content: Days) -> pa.Table:
    rows = [
        {"product": product, "day": day, "number": number, "share": share, "amount": Decimal(number)}
        for day, figures in content.items()
        for number, share in figures
    ]
    return pa.Table.from_pylist(rows, schema=FIGURES.schema)


def content(store: IcebergStore, product: str) -> Days:
    found: Days = {}
    for row in store.scan(FIGURES, product=product).to_pylist():
        assert (row["product"], row["amount"]) == (product, row["number"])
        found.setdefault(row["day"], []).append((row["number"], row["share"]))
    return found


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PRODUCTS), days), min_size=1, max_size=5))
def test_days_written_in_any_order_and_again_are_what_was_written_last(
    written: list[tuple[str, Days]],
) -> None:
    expected: dict[str, Days] = {product: {} for product in PRODUCTS}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        with IcebergStore.open(home) as store:
            for product, change in written:
                rows = rows_of(product, change)
                snapshot = store.replace_days(FIGURES, product, list(change), rows)
                backwards = rows.take(pa.array(range(rows.num_rows - 1, -1, -1), pa.int64()))
                assert store.replace_days(FIGURES, product, list(change), backwards) == snapshot
                expected[product] |= change
        with IcebergStore.open(home) as store:
            for product in PRODUCTS:
                left = {day: sorted(figures) for day, figures in sorted(expected[product].items()) if figures}
                assert list(content(store, product).items()) == list(left.items())
                assert len(store.data_files(FIGURES, product=product)) == (1 if left else 0)


def test_a_day_of_several_products_is_read_alone(home: Home) -> None:
    other_day = DAY + timedelta(days=1)
    with IcebergStore.open(home) as store:
        for product in PRODUCTS:
            store.replace_days(
                FIGURES,
                product,
                [DAY, other_day],
                rows_of(product, {DAY: [(1, 0.5)], other_day: [(2, None)]}),
            )
        one = store.scan(FIGURES, product=PRODUCTS[1], day=other_day, columns=["number", "share"])
        assert one.to_pylist() == [{"number": 2, "share": None}]
        assert store.scan(FIGURES, day=DAY)["product"].to_pylist() == list(PRODUCTS)
        with pytest.raises(IcebergStoreError, match="know no days"):
            store.partitions(FIGURES)


def test_writers_of_different_days_lose_nothing(home: Home) -> None:
    IcebergStore.open(home).close()

    def write(day: date) -> None:
        with IcebergStore.open(home) as store:
            store.replace_days(FIGURES, "BTC-USD", [day], rows_of("BTC-USD", {day: [(1, 0.1)]}))

    all_days = [DAY + timedelta(days=number) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, all_days))
    with IcebergStore.open(home) as store:
        assert list(content(store, "BTC-USD")) == all_days


def test_what_another_program_adds_stays_and_maintenance_changes_no_row(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(FIGURES, rows_of("ETH-USD", {DAY: [(7, 0.7)]}))
        for number in range(20):
            day = DAY + timedelta(days=number)
            store.append(FIGURES, rows_of("BTC-USD", {day: [(number, None)]}))
        before = content(store, "BTC-USD")
        assert store.compact(FIGURES).written == 1
        assert {day: sorted(figures) for day, figures in content(store, "BTC-USD").items()} == before
        store.replace_days(FIGURES, "BTC-USD", [DAY], rows_of("BTC-USD", {DAY: [(3, 0.3)]}))
        expired = store.expire(FIGURES, keep=1, grace=timedelta(0), ladder=())
        assert expired.snapshots > 0
        assert content(store, "BTC-USD") == before | {DAY: [(3, 0.3)]}
        assert content(store, "ETH-USD") == {DAY: [(7, 0.7)]}


def test_rows_of_other_days_products_and_tables_are_refused_and_change_nothing(home: Home) -> None:
    rows = rows_of("BTC-USD", {DAY: [(1, None)]})
    with IcebergStore.open(home) as store:
        snapshot = store.replace_days(FIGURES, "BTC-USD", [DAY], rows)
        with pytest.raises(RowsMismatchError, match="other products or days"):
            store.replace_days(FIGURES, "BTC-USD", [DAY + timedelta(days=1)], rows)
        with pytest.raises(RowsMismatchError, match="other products or days"):
            store.replace_days(FIGURES, "ETH-USD", [DAY], rows)
        with pytest.raises(InvalidProductError):
            store.replace_days(FIGURES, "../../x", [DAY], rows)
        floats = rows.set_column(4, "amount", pa.array([0.1]))
        with pytest.raises(RowsMismatchError, match="floats"):
            store.replace_days(FIGURES, "BTC-USD", [DAY], floats)
        with pytest.raises(IcebergStoreError, match="use replace"):
            store.replace_days(TRADES, "BTC-USD", [DAY], make_trades([1]))
        with pytest.raises(IcebergStoreError, match="by day and product"):
            store.replace(FIGURES, "BTC-USD", DAY, rows)
        assert store.snapshot_id(FIGURES) == snapshot
        assert content(store, "BTC-USD") == {DAY: [(1, None)]}
