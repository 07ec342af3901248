"""Which workers run, by what each tier is set to."""

from typing import Final, Literal

from lakehouse.settings import Settings

WORKERS: Final = ("exchange", "feed", "hot", "archive", "candles", "bridge", "flink_job")
"""All there are, in the order in which they take ports from `LAKEHOUSE_METRICS_PORT` on."""


StageName = Literal["hot", "archive", "candles", "bridge"]
"""The workers that read the log."""


def readers(settings: Settings) -> tuple[StageName, ...]:
    """Return the workers that read the log, fastest first.

    With the flink engine the bridge carries the market to Fluss, from where Flink takes it to the tables;
    what remains for the archive worker is small.
    """
    hot: StageName = "hot" if settings.hot_store_kind == "sqlite" else "bridge"
    return (hot, "archive") if settings.engine_kind == "flink" else (hot, "archive", "candles")


def workers(settings: Settings) -> tuple[str, ...]:
    """Return the workers to run, the exchange first where it is the simulated one."""
    exchange = ("exchange",) if settings.feed_kind == "simulated" else ()
    keeper = ("flink_job",) if settings.engine_kind == "flink" else ()
    return (*exchange, "feed", *readers(settings), *keeper)
