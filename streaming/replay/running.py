"""Which replays run now, and which of them are paused: what processes tell each other through files."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from lakehouse.home import Home
from lakehouse.stores.lock import AlreadyRunningError, held
from streaming.engines.embedded.stage import Freeing
from streaming.replay.settings import ReplayError
from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import REPLAY

_LOCK: Final = "replay-"
_LOOKS: Final = 5
_PAUSE_SECONDS: Final = 0.02


@contextmanager
def only_one(home: Home, replay_id: str) -> Iterator[None]:
    """Let nobody else run this replay during the block.

    Raises:
        AlreadyRunningError: another process does.
    """
    with ExitStack() as stack:
        for left in reversed(range(_LOOKS)):
            try:
                stack.enter_context(held(home.locks, _LOCK + replay_id, wait=False))
                break
            except AlreadyRunningError:  # or somebody looks whether it runs, which takes no time
                if not left:
                    raise
                time.sleep(_PAUSE_SECONDS)
        yield


def running(home: Home) -> set[str]:
    """Return the ids of the replays that run."""
    found = set()
    for path in home.locks.glob(f"{_LOCK}*.lock"):
        replay_id = path.name.removeprefix(_LOCK).removesuffix(".lock")
        try:
            with held(home.locks, _LOCK + replay_id, wait=False):
                pass
        except AlreadyRunningError:
            found.add(replay_id)
    return found


def forget(home: Home, replay_id: str) -> None:
    """Remove what a replay that doesn't run has left of files."""
    for path in (home.locks / f"{_LOCK}{replay_id}.lock", _pause(home, replay_id)):
        path.unlink(missing_ok=True)


def pause(home: Home, replay_id: str) -> None:
    """Pause a replay that runs, in whatever process.

    Raises:
        ReplayError: it doesn't run.
    """
    if replay_id not in running(home):
        raise ReplayError(f"no replay {replay_id[:60]!r} runs in {home.folder}{_choice(home)}")
    _pause(home, replay_id).touch()


def resume(home: Home, replay_id: str) -> None:
    """Let a paused replay go on.

    Raises:
        ReplayError: it isn't paused.
    """
    if replay_id not in running(home) or not is_paused(home, replay_id):
        raise ReplayError(f"no replay {replay_id[:60]!r} is paused in {home.folder}{_choice(home)}")
    _pause(home, replay_id).unlink()


def unpause(home: Home, replay_id: str) -> None:
    """Let a replay that starts go on, though it was paused when it ended."""
    _pause(home, replay_id).unlink(missing_ok=True)


def is_paused(home: Home, replay_id: str) -> bool:
    """Tell whether a replay is to stand still."""
    return _pause(home, replay_id).exists()


def _pause(home: Home, replay_id: str) -> Path:
    return home.locks / f"{_LOCK}{Path(replay_id).name}.paused"


def _choice(home: Home) -> str:
    found = sorted(running(home))
    return f": {', '.join(found)} do" if found else ": none does"


class FreeingAlone(Freeing):
    """Lets the log drop replayed messages once they are in the candles, unless another replay runs.

    It may not have read its own yet, and they lie between the others. One that starts now begins at the
    log's end, which is behind all that is committed here. The archive holds every trade, so nothing has to
    be synced first.
    """

    def __init__(self, spine: Spine, home: Home, replay_id: str) -> None:
        super().__init__(spine, REPLAY, synced=False)
        self._home = home
        self._replay_id = replay_id

    def after_commit(self, offsets: Mapping[Partition, int], *, now: bool = False) -> None:
        """See `Freeing.after_commit`; what nobody needs any more is dropped at once."""
        if not self._is_due(now) or running(self._home) - {self._replay_id}:
            return
        super().after_commit(offsets, now=True)
        self._spine.retain({REPLAY: (REPLAY,)}, max_age_us=0, max_bytes=0)
