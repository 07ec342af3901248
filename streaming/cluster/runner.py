"""The native runner: the cluster's processes on this machine, in the background, kept running."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from lakehouse.settings import Settings
from lakehouse.stores.lock import AlreadyRunningError, held
from streaming.cluster import postgres
from streaming.cluster.configuration import Launch, java_launch
from streaming.cluster.definition import ClusterError, Definition, load, load_sums
from streaming.cluster.functions import ensure_functions
from streaming.cluster.iggy import iggy_launch
from streaming.cluster.jars import ensure_jars, find_java
from streaming.cluster.place import Place, native_place, setting_of
from streaming.cluster.readiness import is_ready
from streaming.cluster.supervision import Supervisor

START_SECONDS = 300
"""How long a start may take before it counts as failed: on a busy machine it takes longer than it should."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process as it is now."""

    name: str
    state: str
    """supervisord's word in small letters, `ready` where it also answers."""
    pid: int
    """0 where it doesn't run."""
    port: int
    memory_mib: int
    """Resident memory of the process and its children, shared pages counted once."""
    seconds: float
    """How long it has been running."""


class Cluster:
    """The processes of one home's cluster.

    Args:
        settings: say where it lies, its addresses, and what of it is wanted: PostgreSQL runs unless
            `iceberg_catalog` names a server, Iggy where `iggy_binary` is given.
        definition: the processes, those of docker/processes.toml unless given.
        start_seconds: how long a start may take before it counts as failed.
    """

    def __init__(
        self,
        settings: Settings,
        definition: Definition | None = None,
        *,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._settings = settings
        self._start_seconds = start_seconds
        self._definition = definition or load()
        self.place: Place = native_place(settings, self._definition)
        self._supervisor = Supervisor(self.place)

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of the processes that run here, in the definition's order."""
        unwanted = set()
        if self._settings.iceberg_catalog:
            unwanted.add("postgres")
        if not self._settings.iggy_binary:
            unwanted.add("iggy")
        return tuple(name for name in self._definition.process if name not in unwanted)

    def fetch(self, say: Callable[[str], None]) -> None:
        """Fetch the jars, where they aren't there yet.

        Raises:
            ClusterError: no Java, no Maven, no network, a wrong sum.
        """
        java = find_java(self._definition.java)
        sums = load_sums()
        ensure_jars(self.place.jars, sums, java, say)
        ensure_functions(self.place.jars, sums, java)

    def up(self, say: Callable[[str], None]) -> float:
        """Start what doesn't run and wait until all of it is ready; return the seconds that took.

        What runs already is left alone. When the start fails, what was started is stopped again.

        Raises:
            ClusterError: it can't be started, or isn't ready in time.
        """
        with self._alone():
            self.fetch(say)
            start = time.monotonic()
            if not self._supervisor.states():
                self._end()
                self._check_ports()
                self._check_memory()
                self._supervisor.launch(self._launches())
            try:
                self._start_in_order(say)
                if "postgres" in self.processes:
                    for database in postgres.DATABASES:
                        postgres.create_database(self.place, database)
                    postgres.leave_address(self.place)
            except BaseException:
                self._end()
                raise
            return time.monotonic() - start

    def down(self) -> bool:
        """Stop everything; tell whether anything ran.

        Raises:
            ClusterError: something didn't stop.
        """
        with self._alone():
            ran = bool(self._supervisor.processes())
            self._end()
        return ran

    def status(self) -> list[ProcessStatus]:
        """Return each process's state; empty where the cluster doesn't run."""
        states = self._supervisor.states()
        return [
            ProcessStatus(
                name,
                "ready"
                if states[name].pid and is_ready(name, self._definition, self.place)
                else states[name].state.lower(),
                states[name].pid,
                self.place.ports[self._definition.process[name].port],
                _memory_mib(states[name].pid),
                time.time() - states[name].started if states[name].pid else 0.0,
            )
            for name in self.processes
            if name in states
        ]

    def pid(self, name: str) -> int:
        """Return a process's id, 0 while it doesn't run."""
        return self._supervisor.states()[name].pid

    def start(self, *names: str) -> None:
        """Start processes that were stopped; those that run are left alone."""
        for name in names:
            self._supervisor.start(name)

    def stop(self, *names: str) -> None:
        """Stop processes, which then stay down until `start`."""
        self._supervisor.stop(*names)

    def wait_ready(self, *names: str, seconds: float = START_SECONDS) -> None:
        """Wait until these processes are ready, all of them where none is named.

        Raises:
            ClusterError: one isn't in time.
        """
        deadline = time.monotonic() + seconds
        for name in names or self.processes:
            while not is_ready(name, self._definition, self.place):
                if time.monotonic() > deadline:
                    raise self._late(name, seconds)
                time.sleep(0.1)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.place.root.mkdir(parents=True, exist_ok=True)
            self.place.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"{self.place.root} can't be used ({error.strerror}): set LAKEHOUSE_HOME to a folder "
                "that may be written"
            ) from None
        try:
            with held(self.place.root, "cluster", wait=False):
                yield
        except AlreadyRunningError:
            raise ClusterError(
                f"another `lakehouse cluster` works on {self.place.root}: wait until it is done"
            ) from None

    def _launches(self) -> list[Launch]:
        java = find_java(self._definition.java)
        sums = load_sums()
        launches = []
        for name in self.processes:
            if name == "postgres":
                launches.append(postgres.postgres_launch(self.place))
            elif name == "iggy" and self._settings.iggy_binary:
                launches.append(iggy_launch(self._settings.iggy_binary, self._settings, self.place))
            else:
                launches.append(java_launch(name, self._definition, self.place, sums, java))
        return launches

    def _start_in_order(self, say: Callable[[str], None]) -> None:
        waiting = list(self.processes)
        started: list[str] = []
        ready: set[str] = set()
        begun = time.monotonic()
        while len(ready) < len(self.processes):
            for name in [n for n in waiting if ready.issuperset(self._definition.process[n].after)]:
                self._supervisor.start(name)
                waiting.remove(name)
                started.append(name)
            for name in [n for n in started if n not in ready]:
                if is_ready(name, self._definition, self.place):
                    ready.add(name)
                    say(f"  {name:<18} ready after {time.monotonic() - begun:4.1f} s")
            if time.monotonic() - begun > self._start_seconds:
                raise self._late(next(name for name in started if name not in ready), self._start_seconds)
            time.sleep(0.1)

    def _late(self, name: str, seconds: float) -> ClusterError:
        return ClusterError(
            f"{name} isn't ready after {seconds:.0f} s: see {self.place.logs / f'{name}.log'}"
        )

    def _end(self) -> None:
        """Stop everything, no process before those that need it."""
        waves, left = [], set(self.processes)
        while left:
            needed = {other for name in left for other in self._definition.process[name].after}
            waves.append(sorted(left - needed))
            left &= needed
        self._supervisor.end(waves)

    def _check_ports(self) -> None:
        ports = {self._definition.process[name].port for name in self.processes}
        ports |= {"flink-rpc"}
        for name in sorted(ports):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self.place.ports[name]))
                except OSError as error:
                    raise ClusterError(
                        f"port {self.place.ports[name]} on 127.0.0.1, {name}'s, can't be used "
                        f"({error.strerror}): stop what uses it or set {setting_of(name)}"
                    ) from None

    def _check_memory(self) -> None:
        needed = self._definition.memory_mib
        available = psutil.virtual_memory().available // 2**20
        if available < needed:
            raise ClusterError(
                f"the cluster takes up to {needed} MiB of memory and {available} MiB are free: stop "
                "something, or use LAKEHOUSE_PROFILE=embedded, which takes a tenth of it"
            )


def _memory_mib(pid: int) -> int:
    """Return the memory of a process and its children in MiB, 0 where it is gone."""
    if not pid:
        return 0
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss if os.access(f"/proc/{one.pid}/smaps_rollup", os.R_OK) else 0
    except psutil.Error:
        return total // 2**20
    return total // 2**20
