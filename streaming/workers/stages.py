"""Opening a stage of the embedded engine with what it reads and writes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.hot import HotStore
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.lock import held
from lakehouse.stores.paimon import PaimonStore
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import CandlesStage
from streaming.engines.embedded.hot import HotStage
from streaming.engines.embedded.stage import Stage
from streaming.spine.contract import Spine

StageName = Literal["hot", "archive", "candles"]


@contextmanager
def opened(name: StageName, spine: Spine, settings: Settings, home: Home) -> Iterator[Stage]:
    """Open a stage for the block; nobody else may run it at the same time.

    At the end of the block the stage is closed and the log may drop what it has committed; the spine stays
    open.

    Raises:
        AlreadyRunningError: another process runs this stage on this home.
        HotStoreError, IcebergStoreError, PaimonStoreError: its store can't be opened.
    """
    with ExitStack() as stack:
        stack.enter_context(held(home.locks, f"worker-{name}", wait=False))
        stage: Stage
        if name == "hot":
            hot = HotStore.open(home.hot_store, window_minutes=settings.hot_window_minutes)
            stage = HotStage(spine, stack.enter_context(hot))
        elif name == "archive":
            stage = ArchiveStage(spine, stack.enter_context(IcebergStore.open(home)))
        else:
            store = stack.enter_context(PaimonStore.open(home))
            stage = CandlesStage(spine, store, lateness_minutes=settings.lateness_minutes)
        yield stage
        stage.close()
