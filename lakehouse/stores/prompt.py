"""`lakehouse sql`: one statement, or a prompt with history; over the tables now, or as of a moment."""

import argparse
import readline
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime

import duckdb

from lakehouse.home import Home, HomeError, home_of
from lakehouse.market.time import from_datetime, to_iso
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStoreError
from lakehouse.stores.paimon_files import PaimonStoreError
from lakehouse.stores.versions import PastError

HISTORY_LINES = 2000


def moment_us(text: str) -> int:
    """Return the µs of an ISO 8601 date or time; one without an offset is taken for UTC, and that is said.

    Raises:
        PastError: the text is no time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PastError(
            f"--as-of takes a time of ISO 8601, such as 2026-11-20T10:00:00Z, not {text[:40]!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
        print(f"--as-of has no offset and is taken for UTC: {moment.isoformat()}", file=sys.stderr)
    return from_datetime(moment)


def run_statement(
    home: Home, settings: Settings, statement: str, style: sql.Format, as_of_us: int | None
) -> None:
    """Print what a statement returns, over the tables as they are or as of a moment; Ctrl-C ends it.

    It runs in a thread: DuckDB doesn't look for signals while it works in the main one.
    """
    opened = sql.connect(home, settings, as_of_us=as_of_us)
    with opened as connection, ThreadPoolExecutor(1) as worker:
        running = worker.submit(lambda: sql.render(sql.run_query(connection, statement), style, sys.stdout))
        try:
            running.result()
        except KeyboardInterrupt:
            while not running.done():  # one that comes before the statement starts is forgotten
                connection.interrupt()
                wait([running], 0.05)
            raise


def run_prompt(home: Home, settings: Settings, style: sql.Format, as_of_us: int | None) -> None:
    """Read statements that end with `;` until end of file; an error ends none but its own."""
    history = home.root / "sql_history"
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    label = "SIMULATED data" if home.namespace == "simulated" else "market data"
    moment = "" if as_of_us is None else f" as of {to_iso(as_of_us)}"
    print(f"{label} in {home.root}{moment}. A statement ends with ; and Ctrl-D leaves.")
    statement = ""
    while True:
        try:
            statement += input("lakehouse> " if not statement else "      ...> ") + "\n"
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            statement = ""
            continue
        if not statement.rstrip().endswith(";"):
            statement = statement if statement.strip() else ""
            continue
        try:
            run_statement(home, settings, statement, style, as_of_us)
        except duckdb.Error as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            print()
        statement = ""
        readline.write_history_file(history)


def main() -> int:
    """Run `lakehouse sql`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lakehouse sql")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    parser.add_argument("--as-of", dest="as_of")
    parser.add_argument("statement", nargs="?")
    arguments = parser.parse_args()
    # polars puts its own handler in the place of Python's as it is imported; with that, Ctrl-C ends no wait.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        settings = load_settings()
        home = home_of(settings)
        as_of_us = None if arguments.as_of is None else moment_us(arguments.as_of)
        if arguments.statement is not None:
            run_statement(home, settings, arguments.statement, arguments.format, as_of_us)
        elif sys.stdin.isatty():
            run_prompt(home, settings, arguments.format, as_of_us)
        else:
            run_statement(home, settings, sys.stdin.read(), arguments.format, as_of_us)
    except (SettingsError, HomeError, PastError, IcebergStoreError, PaimonStoreError, duckdb.Error) as error:
        print(f"lakehouse sql: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
