"""Another program commits to our tables without our lock; the catalog is an SQLite file."""

from datetime import timedelta
from pathlib import Path

import pytest
from table_rows import DAY, make_trades
from two_writers import FULL, SAMPLE, check_that_all_is_there, write_beside

from lakehouse.home import Home
from lakehouse.stores import iceberg_commit
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_catalog import open_catalog
from lakehouse.stores.iceberg_commit import CommitConflictError
from lakehouse.stores.schemas import TRADES


def test_commits_beside_another_program_are_exact(home: Home, request: pytest.FixtureRequest) -> None:
    commits = FULL if request.config.getoption("--full") else SAMPLE
    write_beside(home, int(request.config.getoption("--seed")), *commits)
    check_that_all_is_there(home, *commits)


def come_between(home: Home, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let another program commit just before each of our next commits; returns the ids of its rows."""
    ids: list[int] = []
    real = iceberg_commit.apply

    def apply_second(*arguments: object, **more: object) -> object:
        if len(ids) < times:
            ids.append(1_000 + len(ids))
            catalog = open_catalog(home)
            catalog.load_table((home.namespace, TRADES.name)).append(make_trades(ids[-1:]))
            catalog.close()
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(iceberg_commit, "apply", apply_second)
    return ids


def test_a_commit_is_made_again_and_leaves_no_file_of_the_attempts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]), counters={"x": 1})
        theirs = come_between(home, monkeypatch, 3)
        store.append(TRADES, make_trades([2]), counters={"x": 1})
        assert sorted(store.scan(TRADES)["trade_id"].to_pylist()) == [1, 2, *theirs]
        assert store.counters(TRADES) == {"x": 2}
        left = {str(path) for path in home.iceberg.glob("warehouse/trades/metadata/*.avro")}
        assert left == {name for name in store.named_files(TRADES) if name.endswith(".avro")}


def test_a_replacement_leaves_what_came_between_beside_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1, 2]))
        files = store.data_files(TRADES, product="BTC-USD", day=DAY)
        theirs = come_between(home, monkeypatch, 1)
        store.replace(TRADES, "BTC-USD", DAY, make_trades([1, 2, 3]), files=files)
        assert sorted(store.scan(TRADES)["trade_id"].to_pylist()) == [1, 2, 3, *theirs]
        assert store.partitions(TRADES)[0].files == 2


def test_a_commit_gives_up_when_there_is_never_a_moment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iceberg_commit, "ATTEMPTS", 3)
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        theirs = come_between(home, monkeypatch, 3)
        with pytest.raises(CommitConflictError, match="nothing was changed"):
            store.append(TRADES, make_trades([2]))
        assert sorted(store.scan(TRADES)["trade_id"].to_pylist()) == [1, *theirs]


def test_a_file_that_waits_for_its_commit_is_not_swept_and_one_that_was_named_is(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        (first,) = store.data_files(TRADES)
        waiting = (
            home.iceberg / "warehouse" / "trades" / "data" / "day=2026-01-02" / "00000-0-4a-00001.parquet"
        )
        waiting.write_bytes(b"")
        listing = home.iceberg / "warehouse" / "trades" / "metadata" / "4a-7-00000-0-12-00001.avro"
        listing.write_bytes(b"")
        named = Path(first.file_path)
        checksums = [path.with_name(f".{path.name}.crc") for path in (named, waiting)]
        for checksum in checksums:
            checksum.write_bytes(b"crc")
        store.replace(TRADES, "BTC-USD", DAY, make_trades([2]))
        store.expire(TRADES, keep=1, grace=timedelta(0), ladder=())
        store.sweep(TRADES, grace=timedelta(0))
        left = {str(path) for path in home.iceberg.rglob("trades/**/*.*")}
        assert {str(waiting), str(listing)} < left
        assert first.file_path not in left
        assert [checksum.exists() for checksum in checksums] == [False, True]
        store.sweep(TRADES, grace=timedelta(0), pending=timedelta(0))
        assert not waiting.exists()
        assert not listing.exists()
        assert not checksums[1].exists()
