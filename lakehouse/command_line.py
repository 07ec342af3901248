"""The command `lakehouse`: starts processes by module name, so that none of them has to be imported."""

import os
import sys
from typing import NoReturn

import click

_FEED = click.option(
    "--feed",
    metavar="FEED",
    help="simulated, coinbase, binance, or recording:PATH. Default: LAKEHOUSE_FEED, else simulated.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """A crypto-market lakehouse: live trades and order books in; exact candles and an archive out.

    All data lies under LAKEHOUSE_HOME (default .lakehouse). Settings are LAKEHOUSE_* variables or lines
    of .env; .env.example lists them.
    """


@main.command()
@_FEED
@click.option("--no-dagster", is_flag=True, help="Leave out the Dagster UI and its daemon.")
def up(feed: str | None, no_dagster: bool) -> None:
    """Start everything and keep it running until Ctrl-C.

    Starts the feed, the engine's workers and Dagster, each a process of its own that is started again
    when it dies. The simulated exchange is started as well where it is the feed. Starting again goes on
    where it stopped.
    """
    _become("streaming.workers.supervisor", feed, *(["--no-dagster"] if no_dagster else []))


@main.command()
@_FEED
@click.option("--drain", is_flag=True, required=True, help="Stop when the feed is at its end.")
def stream(feed: str | None, drain: bool) -> None:
    """Run only the streaming side, in this process, until everything is committed.

    The feed has to have an end: a recording. The last line on stdout is one JSON object: how many inputs
    were received, accepted, duplicates and quarantined; how many rows the tables hold now (trades, quotes,
    book, candles, gaps); and the seconds it took.
    """
    _become("streaming.workers.drain", feed)


@main.command()
@click.option("--feed", type=click.Choice(["simulated", "coinbase", "binance"]), required=True)
@click.option("--out", required=True, metavar="FILE.jsonl.zst", type=click.Path(dir_okay=False))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time.")
def record(feed: str, out: str, seconds: float | None) -> None:
    """Write the raw frames of a live feed to a file, until Ctrl-C.

    The file is a feed like any other afterwards: --feed recording:FILE.jsonl.zst
    """
    limit = ["--seconds", str(seconds)] if seconds else []
    _become("streaming.workers.record", None, "--feed", feed, "--out", out, *limit)


@main.command()
@click.option("--day", metavar="DAY", help="UTC day to replay, such as 2026-11-20.")
@click.option("--products", metavar="A,B", help="Whose trades. Default: all that has trades on that day.")
@click.option("--speed", metavar="60|max", help="How many times the exchange's speed. Default: max.")
@click.option("--snapshot", metavar="ID", help="The snapshot of trades to read. Default: the current one.")
@click.option("--pause", metavar="REPLAY", help="Pause the running replay with this id.")
@click.option("--resume", metavar="REPLAY", help="Let a paused replay go on.")
def replay(**options: str | None) -> None:
    """Play an archived day once more, through the log and the engine into replay_candles_1m.

    Trades come in the exchange's order, at a multiple of its speed or as fast as possible. What was
    interrupted goes on when the same command is given again. The last line on stdout is one JSON object
    with the replay's id, under which its candles are in the table. docs/replay.md says more.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _become("streaming.workers.replay", None, *(f"--{name}={value}" for name, value in given.items()))


@main.command()
@click.argument("statement", required=False, metavar='["SELECT …"]')
@click.option("--format", "style", type=click.Choice(["table", "csv", "json"]), default="table")
@click.option("--as-of", metavar="TIME", help="Read every table as it stood then: 2026-11-20T10:00:00Z.")
def sql(statement: str | None, style: str, as_of: str | None) -> None:
    """Ask all tables in SQL (DuckDB), as they are now or as of a moment; read-only.

    Tables: trades, quotes, book, candles_1m, candles_1m_filled, candles_1h, candles_1d, exchange_candles,
    metrics_daily, liquidity, exchange_health, reconciliation, replay_candles_1m, gaps, gaps_now, gaps_open,
    quarantine, intake.
    Without a statement there is a prompt with history. Decimals stay exact in csv and json.
    """
    moment = ["--as-of", as_of] if as_of else []
    _become("lakehouse.stores.prompt", None, "--format", style, *moment, *([statement] if statement else []))


@main.command()
def status() -> None:
    """Show workers, lag, freshness, gaps and quarantine; exit code 1 when something is wrong."""
    _become("streaming.workers.status", None)


@main.command()
@click.argument("action", type=click.Choice(["up", "down", "status", "fetch", "run", "ready"]))
@click.argument("process", required=False)
def cluster(action: str, process: str | None) -> None:
    """Run ZooKeeper, Fluss, Flink and PostgreSQL on this machine: up, down, status.

    They run in the background, on 127.0.0.1, below LAKEHOUSE_HOME, and come back when they die. Java 17,
    Maven and PostgreSQL have to be installed; `up` fetches the rest at its first start, and `fetch` does
    only that. `run PROCESS` and `ready PROCESS` are what containers call: they run one process of
    docker/processes.toml in this one's place, and tell whether it answers.
    """
    _become("streaming.cluster.command", None, action, *([process] if process else []))


def _become(module: str, feed: str | None, *arguments: str) -> NoReturn:
    """Replace this process by a module's, so that signals and the exit code are its own."""
    if feed is not None:
        os.environ["LAKEHOUSE_FEED"] = feed
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    main()
