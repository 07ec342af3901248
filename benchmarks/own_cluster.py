"""A native cluster in a folder and on ports of its own, beside whatever else runs here."""

import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.settings import Settings, load_settings
from streaming.cluster import postgres
from streaming.cluster.definition import Definition, load
from streaming.cluster.place import SET_BY, jars_folder
from streaming.cluster.runner import Cluster


def ports_for_servers(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that the system gives to clients.

    A server that was killed has to find its port free when it comes back, whatever connected meanwhile.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def settings_for(home: Path, definition: Definition, **overrides: object) -> Settings:
    """Return settings of a native cluster in `home` on free ports, without an Iggy server."""
    ports = dict(zip(definition.ports, ports_for_servers(len(definition.ports)), strict=True))
    others = (f"{name}={port}" for name, port in ports.items() if name not in SET_BY)
    chosen: dict[str, object] = {
        "home": home,
        "profile": "cluster",
        "spine": "sqlite",
        "fluss_address": f"127.0.0.1:{ports['fluss-coordinator']}",
        "flink_url": f"http://127.0.0.1:{ports['flink-rest']}",
        "flink_gateway_url": f"http://127.0.0.1:{ports['flink-gateway']}",
        "iggy_address": f"127.0.0.1:{ports['iggy']}",
        "iggy_binary": None,
        "cluster_ports": ",".join(others),
        "cluster_jars": jars_folder(load_settings()),
        "iceberg_catalog": None,
    }
    return load_settings(**chosen | overrides)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other accounts may enter: where we are root PostgreSQL runs under another one."""
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-cluster-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def own_cluster(say: Callable[[str], None]) -> Iterator[Callable[[str], Settings]]:
    """Run a cluster for the block; give what makes settings of a new home, by its name, that lead to it."""
    definition = load()
    with open_folder() as folder:
        settings = settings_for(folder, definition)
        cluster = Cluster(settings, definition)
        try:
            cluster.up(say)

            def settings_of(home: str) -> Settings:
                postgres.create_database(cluster.place, home)
                address = postgres.address(cluster.place, home)
                return settings.model_copy(update={"iceberg_catalog": address, "home": folder / home})

            yield settings_of
        finally:
            cluster.down()
