"""Where the cluster runs: on this machine under the home, or spread over containers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lakehouse.settings import Settings
from streaming.cluster.definition import ClusterError, Definition

LOOPBACK = ("127.0.0.1", "localhost")

SET_BY = {
    "fluss-coordinator": "LAKEHOUSE_FLUSS_ADDRESS",
    "flink-rest": "LAKEHOUSE_FLINK_URL",
    "flink-gateway": "LAKEHOUSE_FLINK_GATEWAY_URL",
    "iggy": "LAKEHOUSE_IGGY_ADDRESS",
}
"""Ports that follow the address their clients use."""


@dataclass(frozen=True)
class Place:
    """Folders, addresses and ports; nothing is created by naming them."""

    root: Path
    """Everything of the cluster but its logs and, natively, what the tables hold."""
    jars: Path
    logs: Path
    listen: str
    """Address that servers listen on."""
    hosts: Mapping[str, str]
    """Process → name that the others reach it by."""
    ports: Mapping[str, int]

    def data(self, process: str) -> Path:
        """Return the folder of a process's own data."""
        return self.root / "data" / process

    def configuration(self, process: str) -> Path:
        """Return the folder of a process's configuration, rendered."""
        return self.root / "configuration" / process

    @property
    def marker(self) -> str:
        """A Java option by which this cluster's processes are told from others."""
        return f"-Dlakehouse.cluster={self.root}"


def native_place(settings: Settings, definition: Definition) -> Place:
    """Return the place on this machine.

    Raises:
        ClusterError: an address is another machine's, or LAKEHOUSE_CLUSTER_PORTS is wrong.
    """
    root = settings.home.absolute() / "cluster"
    return Place(
        root,
        jars_folder(settings),
        settings.home.absolute() / "logs" / "cluster",
        "127.0.0.1",
        dict.fromkeys(definition.process, "127.0.0.1"),
        _ports(settings, definition),
    )


def container_place(settings: Settings, definition: Definition) -> Place:
    """Return the place of a process in a container: each service is named like its process."""
    root = settings.home.absolute() / "cluster"
    hosts = {name: name for name in definition.process}
    return Place(root, jars_folder(settings), root / "logs", "0.0.0.0", hosts, definition.ports)


def jars_folder(settings: Settings) -> Path:
    """Return the folder of the Java parts."""
    return (settings.cluster_jars or settings.home / "cluster" / "jars").absolute()


def setting_of(port: str) -> str:
    """Return what moves a port: for a sentence about one that is in use."""
    return SET_BY.get(port) or f"LAKEHOUSE_CLUSTER_PORTS={port}=…"


def _ports(settings: Settings, definition: Definition) -> dict[str, int]:
    ports = dict(definition.ports)
    movable = sorted(set(ports) - set(SET_BY))
    for part in filter(None, (part.strip() for part in settings.cluster_ports.split(","))):
        name, _, number = part.partition("=")
        if name not in movable or not number.isdecimal() or not 0 < int(number) < 65536:
            raise ClusterError(
                f"LAKEHOUSE_CLUSTER_PORTS: {part[:60]!r} isn't a name and a port, as in postgres=5433; the "
                f"names are {', '.join(movable)}"
            )
        ports[name] = int(number)
    addresses = {
        "fluss-coordinator": f"//{settings.fluss_address}",
        "flink-rest": settings.flink_url,
        "flink-gateway": settings.flink_gateway_url,
    }
    if settings.iggy_binary:
        addresses["iggy"] = f"//{settings.iggy_address}"
    for name, address in addresses.items():
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host not in LOOPBACK or port is None:
            raise ClusterError(
                f"{SET_BY[name]} is {address.removeprefix('//')!r}, and this runs the cluster here: set "
                "it to 127.0.0.1 and a port, or use the servers there without `lakehouse cluster`"
            )
        ports[name] = port
    return ports
