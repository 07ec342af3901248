"""Which log is used: the one place that knows both implementations."""

from lakehouse.home import Home
from lakehouse.settings import Settings
from streaming.spine.contract import Spine
from streaming.spine.sqlite import SqliteSpine


def open_spine(settings: Settings, home: Home) -> Spine:
    """Open the log of a home's namespace, creating it where there is none.

    In Iggy a namespace is a stream, `lakehouse-market` or `lakehouse-simulated`.

    Raises:
        SpineError: the log can't be opened, or is of another shape.
    """
    if settings.spine_kind == "iggy":
        # The client is a native library with threads: only who uses it should have it loaded.
        from streaming.spine.iggy import IggySpine

        return IggySpine.open(settings, f"lakehouse-{home.namespace}")
    return SqliteSpine.open(home.spine, settings.spine_partitions)
