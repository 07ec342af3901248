"""`lakehouse cluster`: the native cluster's start and stop, and one process for a container."""

import argparse
import os
import sys
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from lakehouse.settings import Settings, SettingsError, load_settings
from streaming.cluster.configuration import java_launch
from streaming.cluster.definition import ClusterError, load, load_sums
from streaming.cluster.iggy import HOW_TO_GET
from streaming.cluster.jars import find_java
from streaming.cluster.place import container_place
from streaming.cluster.readiness import is_ready
from streaming.cluster.runner import Cluster


def up(settings: Settings, console: Console) -> None:
    """Start the cluster, and say how long it took and how much memory it takes."""

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    definition = load()
    cluster = Cluster(settings, definition)
    seconds = cluster.up(say)
    memory = sum(process.memory_mib for process in cluster.status())
    say(
        f"The cluster is ready after {seconds:.0f} s (limit {definition.ready_seconds}) and takes "
        f"{memory} MiB (limit {definition.memory_mib}). It runs until `lakehouse cluster down`."
    )
    if settings.spine_kind == "iggy" and not settings.iggy_binary:
        say(HOW_TO_GET.format(image=definition.images["iggy"]))


def down(settings: Settings, console: Console) -> None:
    """Stop the cluster."""
    ran = Cluster(settings).down()
    console.print("The cluster is stopped." if ran else "The cluster wasn't running.")


def status(settings: Settings, console: Console) -> int:
    """Show each process; return 1 where one isn't ready."""
    cluster = Cluster(settings)
    found = cluster.status()
    if not found:
        console.print("The cluster doesn't run: start it with `lakehouse cluster up`")
        return 1
    table = Table("process", "state", "port", "pid", "MiB", "running for")
    for one in found:
        running = f"{one.seconds / 60:.0f} min" if one.seconds >= 60 else f"{one.seconds:.0f} s"
        table.add_row(one.name, one.state, str(one.port), str(one.pid or "-"), str(one.memory_mib), running)
    console.print(table)
    console.print(f"{sum(one.memory_mib for one in found)} MiB in all; logs are in {cluster.place.logs}")
    return 0 if all(one.state == "ready" for one in found) else 1


def run(settings: Settings, name: str) -> NoReturn:
    """Become one of the Java processes, configured for a container.

    Raises:
        ClusterError: there is no such process, no Java, or its jars are missing.
    """
    definition = load()
    if name not in definition.process or not definition.process[name].main:
        known = ", ".join(other for other, process in definition.process.items() if process.main)
        raise ClusterError(f"{name[:60]!r} is no process that can be run: choose from {known}")
    place = container_place(settings, definition)
    launch = java_launch(name, definition, place, load_sums(), find_java(definition.java))
    sys.stdout.flush()
    os.execve(launch.command[0], launch.command, os.environ | launch.environment)


def ready(settings: Settings, name: str) -> bool:
    """Tell whether the process of a container answers.

    Raises:
        ClusterError: there is no such process.
    """
    definition = load()
    if name not in definition.process:
        raise ClusterError(f"{name[:60]!r} is no process: choose from {', '.join(definition.process)}")
    return is_ready(name, definition, container_place(settings, definition))


def main() -> int:
    """Run `lakehouse cluster`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lakehouse cluster")
    parser.add_argument("action", choices=["up", "down", "status", "fetch", "run", "ready"])
    parser.add_argument("process", nargs="?", default="")
    arguments = parser.parse_args()
    console = Console()
    try:
        settings = load_settings()
        match arguments.action:
            case "up":
                up(settings, console)
            case "down":
                down(settings, console)
            case "status":
                return status(settings, console)
            case "fetch":
                Cluster(settings).fetch(console.print)
            case "run":
                run(settings, arguments.process)
            case "ready":
                return 0 if ready(settings, arguments.process) else 1
    except (SettingsError, ClusterError) as error:
        print(f"lakehouse cluster {arguments.action}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
