"""Running a replay by the engine that writes the tables, from its pinned snapshot to its candles."""

from collections.abc import Callable, Collection
from datetime import date
from typing import Protocol

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import TRADES
from streaming.replay.progress import OnProgress, Replayed
from streaming.replay.release import release
from streaming.replay.running import only_one
from streaming.replay.settings import Replay


def run(
    settings: Settings,
    home: Home,
    archive: IcebergStore,
    candles: PaimonStore,
    replay: Replay,
    on_progress: OnProgress = lambda _progress: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Replayed:
    """Run a replay to its end, or on to it where an earlier start was interrupted; one that ended, anew.

    The snapshot stays pinned by a tag for as long as the table has candles of the replay; see `release`.

    Args:
        settings: which log and which engine.
        home: whose tables.
        archive: where its trades are.
        candles: where its candles go.
        replay: which.
        on_progress: called now and then.
        is_stopped: asked now and then; when it says so, what is published is committed, and no more.

    Raises:
        AlreadyRunningError: the same replay runs in another process.
        HomeError: another engine writes the tables.
        ReplayError: this engine can't run it.
        SnapshotGoneError: the snapshot has expired.
        SpineError: the log can't be used.
        FlinkError: Flink can't be used.
    """
    home.claim(settings.engine_kind)
    engine = _engine(settings, home, archive, candles)
    with only_one(home, replay.id):
        engine.check(replay)
        if archive.tags(TRADES).get(replay.tag) != replay.snapshot_id:
            archive.tag(TRADES, replay.tag, replay.snapshot_id)
        replayed = engine.run(replay, on_progress, is_stopped)
    release(home, archive, candles, engine.drop)
    return replayed


class _Engine(Protocol):
    """How an engine replays."""

    def check(self, replay: Replay) -> None: ...

    def run(self, replay: Replay, on_progress: OnProgress, is_stopped: Callable[[], bool]) -> Replayed: ...

    def drop(self, product: str, day: date, replay_ids: Collection[str]) -> None: ...


def _engine(settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> _Engine:
    # Each engine brings libraries that the other does without.
    if settings.engine_kind == "embedded":
        from streaming.replay.embedded import EmbeddedReplays

        return EmbeddedReplays(settings, home, archive, candles)
    from streaming.replay.flink import FlinkReplays

    return FlinkReplays(settings, home, archive, candles)
