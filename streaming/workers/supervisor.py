"""`lakehouse up`: every worker a process of its own under supervisord, and a status line.

supervisord (the library `supervisor`) starts the workers, starts again what dies (at once when it had
been running, after a growing pause when it dies while starting) and keeps their logs. This process only
writes its configuration, shows what is going on, and stops it on Ctrl-C.
"""

import argparse
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

from rich.console import Console
from supervisor.xmlrpc import SupervisorTransport

import lakehouse
from lakehouse.home import Home, HomeError
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.lock import AlreadyRunningError, held
from streaming.cluster.definition import ClusterError
from streaming.workers.preparation import PreparationError, prepare
from streaming.workers.progress_line import progress_lines
from streaming.workers.roster import WORKERS, workers
from streaming.workers.servers import servers
from streaming.workers.stop_signal import StopSignal

ROOT = Path(lakehouse.__file__).parents[1]
"""The repository: where dagster.yaml and workspace.yaml lie."""

_PRIORITIES = {"exchange": 1, "feed": 3, "dagster": 4}

STOP_SECONDS = 30
"""How long a worker may take to commit and stop before it is killed."""


class UpError(Exception):
    """The platform can't be started; the text says why and what to do."""


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    priority: int
    restart: str = "true"
    """supervisord's autorestart: `true`, or `unexpected` where exit code 0 means done."""


def programs(settings: Settings, *, dagster: bool) -> list[Program]:
    """Return what has to run for these settings.

    supervisord starts lower priorities first and stops them last: the feed stops before the stages, so
    that they can commit all it published.
    """
    chosen = []
    for name in workers(settings):
        module = "simulated_exchange" if name == "exchange" else name
        chosen.append(
            Program(
                name,
                (sys.executable, "-m", f"streaming.workers.{module}"),
                _PRIORITIES.get(name, 2),
                "unexpected" if name == "feed" and settings.recording else "true",
            )
        )
    if dagster:
        executable = str(Path(sys.executable).with_name("dagster"))
        address = ("-h", settings.host, "-p", str(settings.dagster_port))
        chosen.append(
            Program(
                "dagster",
                (executable, "dev", "-w", str(ROOT / "workspace.yaml"), *address),
                _PRIORITIES["dagster"],
            )
        )
    return chosen


def configuration(chosen: list[Program], home: Home, socket_file: Path) -> str:
    """Return supervisord's configuration file for these programs."""

    def escaped(text: object) -> str:
        return str(text).replace("%", "%%")

    sections = [
        f"""[supervisord]
nodaemon=true
silent=true
logfile={escaped(home.logs / "supervisor.log")}
pidfile={escaped(home.run / "supervisor.pid")}
childlogdir={escaped(home.logs)}

[unix_http_server]
file={escaped(socket_file)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    for program in chosen:
        command = " ".join(f'"{escaped(part)}"' for part in program.command)
        sections.append(
            f"""[program:{program.name}]
command={command}
directory={escaped(ROOT if program.name == "dagster" else Path.cwd())}
priority={program.priority}
startsecs=3
startretries=1000000
autorestart={program.restart}
exitcodes=0
stopsignal=TERM
stopwaitsecs={STOP_SECONDS}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={escaped(home.logs / f"{program.name}.log")}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
        )
    return "\n".join(sections)


def socket_path(home: Home) -> Path:
    """Return where supervisord listens: a short path, as Unix sockets need one."""
    digest = hashlib.sha256(str(home.root).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lakehouse-{os.getuid()}-{digest}.sock"


@dataclass(frozen=True)
class Supervised:
    """A supervised process: its state (RUNNING, BACKOFF, …) and its id, 0 while it doesn't run."""

    state: str
    pid: int


def processes(home: Home) -> dict[str, Supervised]:
    """Return the supervised processes by name; empty when nothing runs."""
    proxy = ServerProxy(
        "http://localhost", SupervisorTransport(serverurl=f"unix://{socket_path(home)}"), allow_none=True
    )
    try:
        answer = proxy.supervisor.getAllProcessInfo()
    except (OSError, Fault):
        return {}
    return {
        str(process["name"]): Supervised(str(process["statename"]), int(process["pid"]))  # type: ignore[call-overload,index]
        for process in answer  # type: ignore[union-attr]
    }


def supervised(home: Home) -> dict[str, str]:
    """Return each supervised process's state; empty when nothing runs."""
    return {name: process.state for name, process in processes(home).items()}


def check_ports(settings: Settings, *, dagster: bool) -> None:
    """Make sure that the ports are free.

    Raises:
        UpError: one isn't; names it and the setting that changes it.
    """
    wanted = [("LAKEHOUSE_METRICS_PORT", settings.metrics_port + i) for i in range(len(WORKERS))]
    if not settings.metrics_port:
        wanted = []
    if dagster:
        wanted.append(("LAKEHOUSE_DAGSTER_PORT", settings.dagster_port))
    if settings.feed_kind == "simulated":
        wanted.append(("LAKEHOUSE_SIMULATED_WEBSOCKET_PORT", settings.simulated_websocket_port))
        wanted.append(("LAKEHOUSE_SIMULATED_REST_PORT", settings.simulated_rest_port))
    for name, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise UpError(
                    f"port {port} on {settings.host} can't be used ({error.strerror}): stop what uses it or "
                    f"set {name}"
                ) from None


def stop_leftovers(home: Home) -> None:
    """Stop a supervisord whose `lakehouse up` was killed: its workers would hold the locks."""
    try:
        pid = int((home.run / "supervisor.pid").read_text())
    except (FileNotFoundError, ValueError):
        return
    if not supervised(home):
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while supervised(home):
        if time.monotonic() > deadline:
            raise UpError(f"an earlier start still runs (supervisord, process {pid}): stop it first")
        time.sleep(0.2)


@contextmanager
def running(chosen: list[Program], settings: Settings, home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Run the programs under supervisord for the block, and stop them cleanly after it."""
    for stale in home.run.glob("*.json"):
        stale.unlink()
    config = home.run / "supervisord.conf"
    config.write_text(configuration(chosen, home, socket_path(home)))
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        env=_environment(settings, home),
        start_new_session=True,  # Ctrl-C reaches this process only, which then stops the rest in order
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(2 * STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise UpError(f"the workers did not stop within {2 * STOP_SECONDS} s: see {home.logs}") from None


def _environment(settings: Settings, home: Home) -> dict[str, str]:
    """Return what the processes inherit: they read the settings for themselves."""
    return os.environ | {
        "LAKEHOUSE_HOME": str(home.root),
        "LAKEHOUSE_FEED": settings.feed,
        "LAKEHOUSE_SPINE": settings.spine_kind,
        "DAGSTER_HOME": str(_dagster_home(home)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }


def _dagster_home(home: Home) -> Path:
    folder = home.root / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    ours = (ROOT / "dagster.yaml").read_text().replace(".lakehouse/dagster", str(folder))
    (folder / "dagster.yaml").write_text(ours)
    return folder


def _try(settings: Settings, home: Home) -> None:
    """Have opened once what needs servers; where nothing does, the workers say all there is to say."""
    if (settings.spine_kind, settings.engine_kind) == ("sqlite", "embedded"):
        return
    command = [sys.executable, "-m", "streaming.workers.trial"]
    done = subprocess.run(
        command,
        env=_environment(settings, home),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which stops when it is done
    )
    if done.returncode:
        raise UpError(done.stderr.strip())


def _backfill(settings: Settings, home: Home, stop: StopSignal) -> None:
    """Fetch the past days with a progress display of their own; Ctrl-C stops it, the next start resumes."""
    if settings.feed_kind != "simulated" or settings.backfill_days == 0:
        return
    command = [sys.executable, "-m", "lakehouse_assets.backfill", "--days", str(settings.backfill_days)]
    process = subprocess.Popen(command, env=_environment(settings, home), cwd=ROOT, start_new_session=True)
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # a day is sealed by one commit, or not
                process.wait()
            return
    if process.returncode:
        raise UpError(
            f"the backfill of the past days failed (exit code {process.returncode}); what it said is above. "
            "Everything else can be started with LAKEHOUSE_BACKFILL_DAYS=0"
        )


def addresses(settings: Settings, *, dagster: bool) -> list[tuple[str, str]]:
    """Return what a person can open or ask, with its address."""
    listed = []
    if dagster:
        listed.append(("Dagster", f"http://{settings.host}:{settings.dagster_port}"))
    if settings.engine_kind == "flink":
        listed.append(("Flink", settings.flink_url))
    if settings.feed_kind == "simulated":
        listed.append(("simulated exchange", f"ws://{settings.host}:{settings.simulated_websocket_port}"))
        listed.append(("its REST interface", f"http://{settings.host}:{settings.simulated_rest_port}"))
    if settings.metrics_port:
        last = settings.metrics_port + len(WORKERS) - 1
        listed.append(
            ("metrics", f"http://{settings.host}:{settings.metrics_port}/metrics and up to port {last}")
        )
    return listed


def up(settings: Settings, *, dagster: bool, stop: StopSignal, console: Console) -> None:
    """Run the platform until `stop` is set.

    Raises:
        UpError: it can't be started, or supervisord itself ended.
    """
    home = prepare(settings)
    with held(home.run, "up", wait=False):
        stop_leftovers(home)
        check_ports(settings, dagster=dagster)
        with ExitStack() as stack:
            say = partial(console.print, highlight=False, soft_wrap=True)
            settings = stack.enter_context(servers(settings, home, say))
            _try(settings, home)
            chosen = programs(settings, dagster=dagster)
            supervisord = stack.enter_context(running(chosen, settings, home))
            if home.namespace == "simulated":
                console.print("The data is SIMULATED: a market made from a seed, not a real one.")
            for label, address in addresses(settings, dagster=dagster):
                console.print(f"  {label:<20} {address}", highlight=False)
            console.print(f"  {'data and logs':<20} {home.root}", highlight=False, soft_wrap=True)
            _backfill(settings, home, stop)
            for line in progress_lines(settings, home):
                if supervisord.poll() is not None:
                    raise UpError(f"supervisord ended by itself: see {home.logs / 'supervisor.log'}")
                _show(console, line)
                if stop.wait(1.0 if console.is_terminal else 10.0):
                    break
            console.print("\nStopping: the workers commit what they have …")
    console.print("Stopped. Starting again goes on from here.")


def _show(console: Console, line: str) -> None:
    if console.is_terminal:
        console.file.write("\r\x1b[K" + line[: console.width - 1])
        console.file.flush()
    else:
        console.print(line, highlight=False, soft_wrap=True)


def main() -> int:
    """Run `lakehouse up`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lakehouse up")
    parser.add_argument("--no-dagster", action="store_true")
    arguments = parser.parse_args()
    stop = StopSignal()
    stop.listen()
    try:
        up(load_settings(), dagster=not arguments.no_dagster, stop=stop, console=Console())
    except (SettingsError, HomeError, PreparationError, AlreadyRunningError, UpError, ClusterError) as error:
        print(f"lakehouse up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
