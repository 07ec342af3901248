"""Opening a stage with what it reads and writes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.lock import held
from streaming.engines.embedded.stage import Stage
from streaming.engines.fluss.archived import Archived, CommittedByArchive
from streaming.spine.contract import Spine
from streaming.workers.roster import StageName


class StageError(Exception):
    """A stage's store can't be opened; the text says what to do."""


@contextmanager
def opened(name: StageName, spine: Spine, settings: Settings, home: Home) -> Iterator[Stage]:
    """Open a stage for the block; nobody else may run it at the same time.

    At the end of the block the stage is closed and the log may drop what it has committed; the spine stays
    open.

    Raises:
        HomeError: another engine writes the tables of this home.
        AlreadyRunningError: another process runs this stage on this home.
        StageError: its store can't be opened.
        SpineError: the log is not the one that the store was filled from.
    """
    home.claim(settings.engine_kind)
    with ExitStack() as stack:
        stack.enter_context(held(home.locks, f"worker-{name}", wait=False))
        stage = _OPENERS[name](stack, spine, settings, home)
        yield stage
        stage.close()


# Each process imports the store it uses and no other: the three together are 150 MB of libraries.


def _hot(stack: ExitStack, spine: Spine, settings: Settings, home: Home) -> Stage:
    from lakehouse.stores.hot import HotStore
    from lakehouse.stores.hot_store import HotStoreError
    from streaming.engines.embedded.hot import HotStage

    try:
        store = HotStore.open(home.hot_store, window_minutes=settings.hot_window_minutes)
    except HotStoreError as error:
        raise StageError(str(error)) from error
    return HotStage(spine, stack.enter_context(store))


def _archive(stack: ExitStack, spine: Spine, settings: Settings, home: Home) -> Stage:
    from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
    from streaming.engines.embedded.archive import BESIDE_FLINK, ArchiveStage
    from streaming.engines.embedded.decode import ROWS

    archived = BESIDE_FLINK if settings.engine_kind == "flink" else tuple(ROWS)
    try:
        return ArchiveStage(spine, stack.enter_context(IcebergStore.open(home)), archived)
    except IcebergStoreError as error:
        raise StageError(str(error)) from error


def _candles(stack: ExitStack, spine: Spine, settings: Settings, home: Home) -> Stage:
    from lakehouse.candles.open_minutes import StateError
    from lakehouse.stores.paimon import PaimonStore
    from lakehouse.stores.paimon_files import PaimonStoreError
    from streaming.engines.embedded.candles import CandlesStage, live

    try:
        store = stack.enter_context(PaimonStore.open(home))
        return CandlesStage(spine, store, live(settings.lateness_minutes))
    except (PaimonStoreError, StateError) as error:
        raise StageError(str(error)) from error


def _bridge(stack: ExitStack, spine: Spine, settings: Settings, home: Home) -> Stage:
    from lakehouse.stores.fluss_connection import target_of
    from lakehouse.stores.fluss_writer import FlussWriter, event_loop
    from streaming.engines.fluss.bridge import BridgeStage
    from streaming.engines.fluss.current_table import CurrentTable
    from streaming.engines.fluss.known_ends import KnownEnds

    target = target_of(settings, home)
    runner = stack.enter_context(event_loop())
    return BridgeStage(
        spine,
        _archived(stack, spine, settings, home),
        lambda: FlussWriter.open(runner, target),
        stack.enter_context(CurrentTable.kept(target)),
        compare_seconds=2 * settings.flink_checkpoint_seconds,
        grace_seconds=max(6 * settings.flink_checkpoint_seconds, 30.0),
        known_ends=KnownEnds(home.folder / "fluss_ends.json"),
    )


def _archived(stack: ExitStack, spine: Spine, settings: Settings, home: Home) -> Archived:
    if settings.engine_kind == "embedded":
        return CommittedByArchive(spine)
    from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
    from streaming.engines.archived_offsets import ArchivedOffsets

    try:
        return ArchivedOffsets(stack.enter_context(IcebergStore.open(home)), spine)
    except IcebergStoreError as error:
        raise StageError(str(error)) from error


_OPENERS: Final[Mapping[StageName, Callable[[ExitStack, Spine, Settings, Home], Stage]]] = {
    "hot": _hot,
    "archive": _archive,
    "candles": _candles,
    "bridge": _bridge,
}
