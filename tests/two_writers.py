"""Our store and another program on one table at once, as with Flink: no lock, a summary of its own."""

import multiprocessing
import random
from datetime import timedelta

from pyiceberg.exceptions import CommitFailedException, ValidationException
from table_rows import DAY, make_trades

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_catalog import open_catalog
from lakehouse.stores.schemas import TRADES

FULL = (100, 200)
"""Commits of ours and of theirs in the campaign."""
SAMPLE = (40, 50)
FIRST_OF_THEIRS = 1_000_000
CHECKPOINT = "flink.max-committed-checkpoint-id"


def commit_like_flink(home: Home, commits: int) -> None:
    """A row a commit; Flink, too, tries again when it comes second."""
    catalog = open_catalog(home)
    for checkpoint in range(commits):
        rows = make_trades([FIRST_OF_THEIRS + checkpoint])
        said = {"flink.job-id": "4a", "flink.operator-id": "7", CHECKPOINT: str(checkpoint)}
        while True:
            try:
                catalog.load_table((home.namespace, TRADES.name)).append(rows, snapshot_properties=said)
            except (CommitFailedException, ValidationException):  # the latter: expired meanwhile
                continue
            break
    catalog.close()


def write_beside(home: Home, seed: int, ours: int, theirs: int) -> None:
    """Commit rows, seals, compactions and expiries of ours beside those commits until both have ended."""
    chance = random.Random(seed)
    other = multiprocessing.get_context("forkserver").Process(target=commit_like_flink, args=(home, theirs))
    with IcebergStore.open(home) as store:
        other.start()  # now that the table is there
        for batch in range(ours):
            store.append(TRADES, make_trades([batch]), offsets={0: batch + 1}, counters={"batches": 1})
            act = chance.random()
            if act < 0.2:
                with store.lock(TRADES):
                    files = store.data_files(TRADES, product="BTC-USD", day=DAY)
                    store.replace(TRADES, "BTC-USD", DAY, store.read(TRADES, files), files=files)
            elif act < 0.5:
                store.compact(TRADES, fan_in=4)
                store.expire(TRADES, keep=4, grace=timedelta(seconds=20))
    other.join(240)
    assert other.exitcode == 0


def check_that_all_is_there(home: Home, ours: int, theirs: int) -> None:
    """Every row of both once, what each remembers with its commits, and no file deleted that is needed."""
    with IcebergStore.open(home) as store:
        ids = sorted(store.scan(TRADES)["trade_id"].to_pylist())
        assert ids == [*range(ours), *range(FIRST_OF_THEIRS, FIRST_OF_THEIRS + theirs)]
        assert store.offsets(TRADES) == {0: ours}
        assert store.counters(TRADES) == {"batches": ours}
        store.append(TRADES, make_trades([ours]))
        store.expire(TRADES, keep=1, grace=timedelta(0))
        snapshot = store.current(TRADES).current_snapshot()
        assert snapshot is not None
        assert snapshot.summary is not None
        assert snapshot.summary[CHECKPOINT] == str(theirs - 1)
        assert int(snapshot.summary["total-records"]) == len(ids) + 1
        assert store.scan(TRADES).num_rows == len(ids) + 1
