"""A PostgreSQL of its own for tests that need no other server: the native cluster's, started by itself."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from benchmarks.own_cluster import ports_for_servers
from streaming.cluster import postgres
from streaming.cluster.definition import ClusterError, MissingProgramError
from streaming.cluster.place import Place

START_SECONDS = 60


class PostgresServer:
    """A running server, which a test may kill and start again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    def new_database(self) -> SecretStr:
        """Make an empty database and return its address."""
        name = f"test_{uuid4().hex[:12]}"
        postgres.create_database(self._place, name)
        return postgres.address(self._place, name)

    def address(self, database: str) -> SecretStr:
        return postgres.address(self._place, database)

    def start(self) -> None:
        launch = postgres.postgres_launch(self._place)
        self._process = subprocess.Popen(
            launch.command,
            user=launch.user,
            cwd=launch.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                postgres.create_database(self._place, "postgres")
            except ClusterError:
                assert self._process.poll() is None, "PostgreSQL ended as it was started"
                assert time.monotonic() < deadline, "PostgreSQL doesn't answer"
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server for the block; skips the test where PostgreSQL isn't installed."""
    root = Path(tempfile.mkdtemp(prefix="lakehouse-postgres-"))
    root.chmod(0o755)  # it runs under another account where we are root
    (port,) = ports_for_servers(1)
    place = Place(root, root, root, "127.0.0.1", {"postgres": "127.0.0.1"}, {"postgres": port})
    server = PostgresServer(place)
    try:
        server.start()
    except MissingProgramError as missing:
        shutil.rmtree(root)
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(root)
