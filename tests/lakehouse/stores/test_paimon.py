import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypaimon import CatalogFactory
from table_rows import DAY, as_read, make_candles, rows_with_extremes

from lakehouse.home import Home
from lakehouse.market.product import InvalidProductError
from lakehouse.stores import paimon_files
from lakehouse.stores.paimon import ForeignCommitError, PaimonStore, PaimonStoreError
from lakehouse.stores.paimon_files import NativePathMissingError
from lakehouse.stores.rows import RowsMismatchError
from lakehouse.stores.schemas import CANDLES_1M

MIDNIGHT_US = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1_000_000)
MINUTE_US = 60_000_000


def in_order(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("product", "ascending"), ("start", "ascending")])


def prices(rows: pa.Table) -> dict[int, str]:
    minutes = [
        int((start - datetime(2026, 1, 2, tzinfo=UTC)).total_seconds() // 60)
        for start in rows["start"].to_pylist()
    ]
    return dict(zip(minutes, (f"{value.normalize():f}" for value in rows["open"].to_pylist()), strict=True))


def test_every_column_comes_back_as_it_was(home: Home) -> None:
    rows = rows_with_extremes(CANDLES_1M.schema)
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, rows.select(list(reversed(CANDLES_1M.schema.names))))
    with PaimonStore.open(home) as store:
        found = store.scan(CANDLES_1M)
        some = store.scan(CANDLES_1M, product="ETH-USD", day=DAY, columns=["volume", "start"])
    assert found.schema.remove_metadata() == pa.schema([f.remove_metadata() for f in CANDLES_1M.schema])
    assert in_order(found).to_pylist() == in_order(as_read(CANDLES_1M, rows)).to_pylist()
    assert some.column_names == ["volume", "start"]
    assert some.num_rows == 2


def test_filters_bound_product_day_and_start(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(
            CANDLES_1M, pa.concat_tables([make_candles(range(10)), make_candles(range(5), "ETH-USD")])
        )
        store.upsert(CANDLES_1M, make_candles([0], day=DAY + timedelta(days=1)))
        window = store.scan(
            CANDLES_1M,
            product="BTC-USD",
            start_us=MIDNIGHT_US + 3 * MINUTE_US,
            end_us=MIDNIGHT_US + 6 * MINUTE_US,
        )
        assert list(prices(window)) == [3, 4, 5]
        assert store.scan(CANDLES_1M, day=DAY).num_rows == 15
        assert store.scan(CANDLES_1M, product="SOL-USD").num_rows == 0
        stats = store.partitions(CANDLES_1M)
    assert [(s.day, s.product, s.rows, s.files) for s in stats] == [
        (DAY, "BTC-USD", 10, 1),
        (DAY, "ETH-USD", 5, 1),
        (DAY + timedelta(days=1), "BTC-USD", 1, 1),
    ]


def test_a_smaller_candle_changes_nothing_and_of_equals_the_later_wins(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([1, 2, 3], count=5, price="5"))
        store.upsert(CANDLES_1M, make_candles([1], count=4, price="4"))
        store.upsert(CANDLES_1M, make_candles([2], count=5, price="55"))
        store.upsert(CANDLES_1M, make_candles([3], count=6, price="6"))
        expected = {1: "5", 2: "55", 3: "6"}
        assert prices(store.scan(CANDLES_1M)) == expected
        assert store.row_count(CANDLES_1M) == 3
        store.compact(CANDLES_1M, fan_in=2)
        assert prices(store.scan(CANDLES_1M)) == expected
        assert store.row_count(CANDLES_1M) == 3
        store.upsert(CANDLES_1M, make_candles([1, 2], count=5, price="7"))
        assert prices(store.scan(CANDLES_1M)) == {1: "7", 2: "7", 3: "6"}


def test_replace_can_shrink_a_candle_and_leaves_other_partitions_alone(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(
            CANDLES_1M, pa.concat_tables([make_candles([1, 2], count=9), make_candles([1], "ETH-USD")])
        )
        before = store.snapshot_id(CANDLES_1M)
        after = store.replace(CANDLES_1M, "BTC-USD", DAY, make_candles([2], count=3, price="3"))
        assert before is not None
        assert after == before + 1
        assert prices(store.scan(CANDLES_1M, product="BTC-USD")) == {2: "3"}
        store.upsert(CANDLES_1M, make_candles([2], count=4, price="4"))
        assert prices(store.scan(CANDLES_1M, product="BTC-USD")) == {2: "4"}
        store.replace(CANDLES_1M, "BTC-USD", DAY, CANDLES_1M.schema.empty_table())
        assert store.scan(CANDLES_1M)["product"].to_pylist() == ["ETH-USD"]


def test_days_are_replaced_in_one_snapshot_and_those_without_rows_emptied(home: Home) -> None:
    days = [DAY + timedelta(days=number) for number in range(4)]
    before = {day: make_candles([1, 2, 3], day=day) for day in days}
    other = make_candles([1], product="ETH-USD", day=days[0])
    after = make_candles([2], day=days[0], count=1), make_candles([5, 6], day=days[1])
    with PaimonStore.open(home) as store:
        for rows in (*before.values(), other):
            store.upsert(CANDLES_1M, rows)
        first = store.replace_days(CANDLES_1M, "BTC-USD", days[:2], pa.concat_tables(after))
        assert first == len(before) + 2
        for day, rows in zip(days, (*after, before[days[2]], before[days[3]]), strict=True):
            assert in_order(store.scan(CANDLES_1M, product="BTC-USD", day=day)).equals(in_order(rows))
        store.replace_days(CANDLES_1M, "BTC-USD", days[1:3], make_candles([7], day=days[2]))
        rows_left = [store.scan(CANDLES_1M, product="BTC-USD", day=day).num_rows for day in days]
        assert rows_left == [1, 0, 1, 3]
        assert store.scan(CANDLES_1M, product="ETH-USD").num_rows == 1
        snapshot = store.snapshot_id(CANDLES_1M)
        for wrong in (other, before[days[3]]):
            with pytest.raises(RowsMismatchError):
                store.replace_days(CANDLES_1M, "BTC-USD", days[:2], wrong)
        assert store.snapshot_id(CANDLES_1M) == snapshot


def test_properties_move_with_the_rows_and_outlive_every_commit(home: Home) -> None:
    with PaimonStore.open(home) as store:
        assert store.properties(CANDLES_1M) == {}
        store.upsert(CANDLES_1M, make_candles([1]), properties={"lakehouse.frontier.0": "5"})
        store.upsert(CANDLES_1M, CANDLES_1M.schema.empty_table(), properties={"lakehouse.frontier.1": "7"})
        store.upsert(CANDLES_1M, make_candles([2]), properties={"lakehouse.frontier.0": "6"})
        store.replace(CANDLES_1M, "ETH-USD", DAY, make_candles([1], "ETH-USD"))
        store.compact(CANDLES_1M, fan_in=2)
        store.expire(CANDLES_1M, keep=1, grace=timedelta(0))
    with PaimonStore.open(home) as store:
        found = store.properties(CANDLES_1M)
    assert (found["lakehouse.frontier.0"], found["lakehouse.frontier.1"]) == ("6", "7")


def test_properties_dropped_by_another_program_are_noticed(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([1]), properties={"lakehouse.frontier.0": "5"})
        other = CatalogFactory.create({"warehouse": str(home.paimon)}).get_table("simulated.candles_1m")
        builder = other.new_batch_write_builder()
        writer = builder.new_write()
        writer.write_arrow(make_candles([2]))
        builder.new_commit().commit(writer.prepare_commit())
        with pytest.raises(ForeignCommitError, match="another program"):
            store.properties(CANDLES_1M)
        with pytest.raises(ForeignCommitError):
            store.upsert(CANDLES_1M, make_candles([3]))
        assert list(prices(store.scan(CANDLES_1M))) == [1, 2]


def test_a_fall_back_to_the_python_writer_is_an_error(home: Home) -> None:
    with PaimonStore.open(home) as store:
        slow = store.opened(CANDLES_1M).copy({"write.native.enabled": "false"})
        with pytest.raises(NativePathMissingError):
            paimon_files.write_rows(slow.new_batch_write_builder().new_write(), make_candles([1]))


def test_rows_that_do_not_fit_are_refused_and_change_nothing(home: Home) -> None:
    good = make_candles([1])
    with PaimonStore.open(home) as store:
        with pytest.raises(RowsMismatchError):
            store.upsert(CANDLES_1M, good.drop_columns(["open"]))
        with pytest.raises(RowsMismatchError):
            store.replace(CANDLES_1M, "ETH-USD", DAY, good)
        with pytest.raises(RowsMismatchError):
            store.replace(CANDLES_1M, "BTC-USD", DAY + timedelta(days=1), good)
        with pytest.raises(PaimonStoreError):
            store.upsert(CANDLES_1M, good, properties={"other": "1"})
        for name in ("../../x", "BTC-USD' OR 1=1", "", "A" * 10_000):
            with pytest.raises(InvalidProductError):
                store.upsert(CANDLES_1M, make_candles([1], name))
            with pytest.raises(InvalidProductError):
                store.scan(CANDLES_1M, product=name)
        assert store.snapshot_id(CANDLES_1M) is None


def test_expiry_deletes_files_but_not_those_of_a_tag(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([1], price="1"))
        store.upsert(CANDLES_1M, make_candles([2], price="2"))
        store.tag(CANDLES_1M, "sealed")
        for n in range(12):
            store.upsert(CANDLES_1M, make_candles([3], price=str(n)))
        store.compact(CANDLES_1M, fan_in=2)
        folder = home.paimon / "simulated.db" / "candles_1m"
        crashed = [folder / "manifest" / "manifest-of-a-crash", folder / "snapshot" / ".snapshot-99.x.tmp"]
        for path in crashed:
            path.write_bytes(b"half")
        result = store.expire(CANDLES_1M, keep=1, grace=timedelta(0), ladder=())
        assert result.snapshots == 14
        assert all(path.exists() for path in crashed)
        assert store.sweep(CANDLES_1M, grace=timedelta(0)).deleted == 2
        assert not any(path.exists() for path in crashed)
        assert len(list(folder.rglob("data-*.parquet"))) == 3
        assert prices(store.scan(CANDLES_1M, tag="sealed")) == {1: "1", 2: "2"}
        assert prices(store.scan(CANDLES_1M)) == {1: "1", 2: "2", 3: "11"}
        again = store.expire(CANDLES_1M, keep=1, grace=timedelta(0), ladder=())
        assert (again.snapshots, again.deleted_files) == (0, 0)
        store.untag(CANDLES_1M, "sealed")
        store.expire(CANDLES_1M, keep=1, grace=timedelta(0), ladder=())
        assert len(list(folder.rglob("data-*.parquet"))) == 1
        store.upsert(CANDLES_1M, make_candles([4], price="4"))
    with PaimonStore.open(home) as store:
        assert prices(store.scan(CANDLES_1M)) == {1: "1", 2: "2", 3: "11", 4: "4"}


def test_a_file_is_deleted_only_after_its_grace(home: Home) -> None:
    with PaimonStore.open(home) as store:
        for n in range(3):
            store.replace(CANDLES_1M, "BTC-USD", DAY, make_candles([n]))
        store.expire(CANDLES_1M, keep=1, grace=timedelta(hours=1))
        result = store.expire(CANDLES_1M, keep=1, grace=timedelta(hours=1))
        assert result.deleted_files == 0
        assert result.waiting > 0
        assert len(list(home.paimon.rglob("data-*.parquet"))) == 3


def test_maintenance_bounds_what_many_commits_leave(home: Home) -> None:
    with PaimonStore.open(home) as store:
        for n in range(80):
            store.upsert(CANDLES_1M, make_candles([n]), properties={"lakehouse.frontier.0": str(n)})
            store.maintain(CANDLES_1M)
        assert store.partitions(CANDLES_1M)[0].files <= 17
        snapshots = list((home.paimon / "simulated.db/candles_1m/snapshot").glob("snapshot-*"))
        assert len(snapshots) <= 34
        assert len(prices(store.scan(CANDLES_1M))) == 80
        assert store.properties(CANDLES_1M)["lakehouse.frontier.0"] == "79"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sets(st.integers(0, 5), min_size=1), st.integers(1, 4)),
        st.tuples(st.just("replace"), st.sets(st.integers(0, 5)), st.integers(1, 4)),
        st.tuples(st.just("compact"), st.just(frozenset[int]()), st.just(2)),
        st.tuples(st.just("expire"), st.just(frozenset[int]()), st.just(1)),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_order_of_writes_and_maintenance_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[int], int]]
) -> None:
    home = Home(Path(tmp_path_factory.mktemp("home")), "simulated").create()
    expected: dict[int, tuple[int, str]] = {}
    with PaimonStore.open(home) as store:
        for number, (step, minutes, count) in enumerate(steps, start=1):
            rows = make_candles(sorted(minutes), count=count, price=str(number))
            if step == "upsert":
                store.upsert(CANDLES_1M, rows)
                for minute in minutes:
                    if count >= expected.get(minute, (0, ""))[0]:
                        expected[minute] = (count, str(number))
            elif step == "replace":
                store.replace(CANDLES_1M, "BTC-USD", DAY, rows)
                expected = {minute: (count, str(number)) for minute in minutes}
            elif step == "compact":
                store.compact(CANDLES_1M, fan_in=2)
            else:
                store.expire(CANDLES_1M, keep=1, grace=timedelta(0))
            assert prices(store.scan(CANDLES_1M)) == {
                minute: price for minute, (_, price) in sorted(expected.items())
            }


def test_of_equal_candles_the_later_wins_whoever_wrote_it(home: Home) -> None:
    with PaimonStore.open(home) as live, PaimonStore.open(home) as other:
        for round_ in range(3):
            live.upsert(CANDLES_1M, make_candles(range(5), price=f"{round_}1"))
            other.upsert(CANDLES_1M, make_candles(range(5), price=f"{round_}2"))
            assert set(prices(live.scan(CANDLES_1M)).values()) == {f"{int(f'{round_}2')}"}
            live.upsert(CANDLES_1M, make_candles(range(5), price=f"{round_}3"))
            assert set(prices(other.scan(CANDLES_1M)).values()) == {f"{int(f'{round_}3')}"}
            other.compact(CANDLES_1M, fan_in=2)
            live.upsert(CANDLES_1M, make_candles(range(5), price=f"{round_}4"))
            assert set(prices(other.scan(CANDLES_1M)).values()) == {f"{int(f'{round_}4')}"}


def test_a_snapshot_that_is_named_before_it_is_there_is_waited_for(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([1, 2]))
        latest = Path(store.opened(CANDLES_1M).snapshot_manager().snapshot_dir) / "LATEST"
        latest.write_text("2")
        with pytest.raises(ValueError, match="Snapshot 2 does not exist"):
            store.scan(CANDLES_1M)
        mending = threading.Timer(0.2, lambda: latest.write_text("1"))
        mending.start()
        assert store.scan(CANDLES_1M).num_rows == 2
        mending.join()
