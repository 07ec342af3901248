"""Which log is used: the one place that knows both implementations."""

from lakehouse.home import Home
from lakehouse.settings import Settings
from streaming.spine.contract import Spine, SpineError
from streaming.spine.sqlite import SqliteSpine


def open_spine(settings: Settings, home: Home) -> Spine:
    """Open the log of a home's namespace, creating it where there is none.

    In Iggy it is a stream of the home's own, such as `lakehouse-market_1f0c9a3e`.

    Raises:
        SpineError: the log can't be opened, is of another shape, or isn't the one that the home began with.
        HomeError: the home was not made by `create`.
    """
    # The tables name their rows' offsets: another log would give the same numbers to other messages.
    first = home.settled("log", settings.spine_kind)
    if first != settings.spine_kind:
        raise SpineError(
            f"the messages of {home.folder} are in the {first} log, not in {settings.spine_kind}: set "
            f"LAKEHOUSE_SPINE={first}, or use an empty LAKEHOUSE_HOME"
        )
    if settings.spine_kind == "iggy":
        # The client is a native library with threads: only who uses it should have it loaded.
        from streaming.spine.iggy import IggySpine

        return IggySpine.open(settings, f"lakehouse-{home.shared_name}")
    return SqliteSpine.open(home.spine, settings.spine_partitions)
