"""Iggy for the native cluster: a server's program that the user gives, as no package registry has one."""

import os
from pathlib import Path

from lakehouse.settings import Settings
from streaming.cluster.configuration import Launch
from streaming.cluster.definition import ClusterError
from streaming.cluster.place import Place

HOW_TO_GET = (
    "No Iggy server: the log is the embedded one (SQLite). Iggy is in no package registry; run its image "
    "({image}) and set LAKEHOUSE_IGGY_ADDRESS, or set LAKEHOUSE_IGGY_BINARY to its server's program."
)


def iggy_launch(binary: Path, settings: Settings, place: Place) -> Launch:
    """Return how Iggy's server is started.

    Raises:
        ClusterError: the program isn't there or may not be run.
    """
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        raise ClusterError(f"LAKEHOUSE_IGGY_BINARY: {str(binary)!r} is not a program that can be run")
    folder = place.data("iggy")
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{place.listen}:{place.ports['iggy']}"
    environment = {
        "IGGY_TCP_ADDRESS": address,
        "IGGY_NODE_ADVERTISED_ADDRESS": place.hosts["iggy"],
        "IGGY_HTTP_ENABLED": "false",
        "IGGY_QUIC_ENABLED": "false",
        "IGGY_WEBSOCKET_ENABLED": "false",
        "IGGY_ROOT_USERNAME": settings.iggy_username,
        "IGGY_ROOT_PASSWORD": settings.iggy_password.get_secret_value(),
    }
    return Launch("iggy", (str(binary.absolute()),), environment, folder=folder)
