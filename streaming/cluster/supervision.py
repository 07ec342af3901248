"""supervisord under the cluster: its configuration, and how it is spoken to."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from streaming.cluster.configuration import Launch
from streaming.cluster.definition import ClusterError
from streaming.cluster.place import Place

STOP_SECONDS = 20
"""How long a process may take to stop before it is killed."""


@dataclass(frozen=True)
class State:
    """What supervisord says of one process."""

    state: str
    """RUNNING, STARTING, BACKOFF, STOPPED, …"""
    pid: int
    started: float
    """Seconds since 1970."""


class Supervisor:
    """The supervisord of one cluster, running or not."""

    def __init__(self, place: Place) -> None:
        self._place = place
        digest = hashlib.sha256(str(place.root).encode()).hexdigest()[:16]
        # A Unix socket's path is short.
        self._socket = Path(tempfile.gettempdir()) / f"lakehouse-cluster-{os.getuid()}-{digest}.sock"

    def states(self) -> dict[str, State]:
        """Return each process's state; empty where supervisord doesn't run."""
        try:
            answer = self._proxy().supervisor.getAllProcessInfo()
        except (OSError, Fault):
            return {}
        assert isinstance(answer, list)
        return {
            str(one["name"]): State(str(one["statename"]), int(one["pid"]), float(one["start"]))
            for one in answer
        }

    def launch(self, launches: Iterable[Launch]) -> None:
        """Start supervisord in the background; it starts no process by itself.

        Raises:
            ClusterError: it ended at once.
        """
        file = self._place.root / "supervisord.conf"
        file.touch(mode=0o600)  # it holds the password that Iggy is started with
        file.write_text(self._configuration(launches))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IGGY_")}
        # It makes itself a daemon: nobody's child, so that it outlives us and leaves no zombie.
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)],
            env=clean,
            capture_output=True,
            cwd="/",
        )
        deadline = time.monotonic() + STOP_SECONDS
        while not self.states():
            if done.returncode or time.monotonic() > deadline:
                raise ClusterError(f"supervisord didn't start: see {self._place.logs / 'supervisor.log'}")
            time.sleep(0.05)

    def start(self, name: str) -> None:
        """Start a process that isn't running; nothing happens where it is."""
        try:
            self._proxy().supervisor.startProcess(name, False)
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise ClusterError(f"{name} can't be started: {fault.faultString}") from None

    def stop(self, *names: str) -> None:
        """Stop processes, all at once, until they are started again; those that don't run are left alone."""
        for name in names:
            try:
                self._proxy().supervisor.stopProcess(name, False)
            except Fault as fault:
                if "NOT_RUNNING" not in fault.faultString:
                    raise ClusterError(f"{name} can't be stopped: {fault.faultString}") from None
        while any(state.pid for name, state in self.states().items() if name in names):
            time.sleep(0.05)  # supervisord kills what takes longer than it may

    def end(self, waves: Iterable[Sequence[str]] = ()) -> None:
        """Stop everything, also what an earlier supervisord that was killed left behind.

        Args:
            waves: the processes to stop at once, one group after the other.

        Raises:
            ClusterError: something didn't stop.
        """
        pid = self._pid()
        if self.states():
            for wave in waves:
                self.stop(*wave)
        if pid is not None and self.states():
            os.kill(pid, signal.SIGTERM)
            _, alive = psutil.wait_procs([psutil.Process(pid)], 3 * STOP_SECONDS)
            if alive:
                raise ClusterError(f"supervisord (process {pid}) didn't stop within {3 * STOP_SECONDS} s")
        leftovers = self.processes()
        for process in leftovers:
            process.terminate()
        for process in psutil.wait_procs(leftovers, STOP_SECONDS)[1]:
            process.kill()
        self._socket.unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """Return this cluster's processes as the machine lists them, supervised or not."""
        named = {self._place.marker, str(self._place.data("postgres") / "data")}
        iggy = str(self._place.data("iggy"))
        return [
            process
            for process in psutil.process_iter(["cmdline", "cwd"])
            if named & set(process.info["cmdline"] or ()) or process.info["cwd"] == iggy
        ]

    def _pid(self) -> int | None:
        try:
            return int((self._place.root / "supervisord.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _proxy(self) -> ServerProxy:
        return ServerProxy(
            "http://localhost", SupervisorTransport(serverurl=f"unix://{self._socket}"), allow_none=True
        )

    def _configuration(self, launches: Iterable[Launch]) -> str:
        logs = self._place.logs
        sections = [
            f"""[supervisord]
logfile={_escaped(logs / "supervisor.log")}
logfile_maxbytes=5MB
logfile_backups=1
pidfile={_escaped(self._place.root / "supervisord.pid")}
childlogdir={_escaped(logs)}

[unix_http_server]
file={_escaped(self._socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
        ]
        for launch in launches:
            command = " ".join(f'"{_escaped(part)}"' for part in launch.command)
            variables = ",".join(f'{name}="{_escaped(value)}"' for name, value in launch.environment.items())
            sections.append(
                f"""[program:{launch.name}]
command={command}
environment={variables}
{f"user={launch.user}" if launch.user else ""}
directory={_escaped(launch.folder or self._place.root)}
autostart=false
autorestart=true
startsecs=1
startretries=1000000
stopsignal={launch.stop_signal}
stopwaitsecs={STOP_SECONDS}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={_escaped(logs / f"{launch.name}.log")}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
            )
        return "\n".join(sections)


def _escaped(text: object) -> str:
    return str(text).replace("%", "%%")
