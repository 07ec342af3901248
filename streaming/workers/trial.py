"""Opens once what the workers will work with, before `lakehouse up` starts them.

A wrong password or a table of another shape then ends the start in one sentence, instead of workers that are
started again and again. It is a process of its own, because of the libraries that it loads.
"""

import sys

from lakehouse.home import Home, HomeError, home_of
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.hot_store import HotStoreError
from lakehouse.stores.iceberg import IcebergStoreError
from lakehouse.stores.paimon_files import PaimonStoreError
from streaming.engines.flink.errors import FlinkError
from streaming.spine.contract import SpineError
from streaming.spine.opening import open_spine


def open_all(settings: Settings, home: Home) -> None:
    """Open the log, and with the flink engine its tables and servers.

    Raises:
        SpineError, HomeError, IcebergStoreError, PaimonStoreError, FlussStoreError, FlinkError: one can't be
            used; the text says which and what to do.
    """
    open_spine(settings, home).close()
    if settings.engine_kind != "flink":
        return
    from streaming.engines.flink.streaming_job import prepare
    from streaming.engines.flink.target import flink_target

    prepare(settings, home)
    target = flink_target(settings, home)
    with target.job_manager() as manager:
        manager.jobs()
    with target.session(with_stream=True):
        pass  # Flink reaches the stores too


def main() -> int:
    """Open all of it; returns 1 and says why where that can't be done."""
    try:
        settings = load_settings()
        open_all(settings, home_of(settings))
    except (
        *(SettingsError, HomeError, SpineError, FlinkError),
        *(IcebergStoreError, PaimonStoreError, HotStoreError),
    ) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
