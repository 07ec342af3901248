"""Structured logs: one line an event, on stderr, with product, partition and offset as fields."""

import logging
import sys

import structlog


def configure(worker: str, *, json: bool | None = None) -> None:
    """Set up this process's log.

    Args:
        worker: bound to every line.
        json: True for JSON lines, False for text; by default text on a terminal, JSON elsewhere.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(worker=worker)
