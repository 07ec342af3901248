"""Ports for the servers that a test starts."""

import os
import random
import socket

_FIRST, _END = 10_000, 15_000
"""Below those that the system gives to clients: one of them could be taken while its server is restarted,
even by the client that tries to reach it. Those of clusters come after (`benchmarks/own_cluster.py`)."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, and that no other process of this test run takes."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    this = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(_FIRST + this, _END, processes)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found
