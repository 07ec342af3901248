"""One cluster for all tests of this folder, which come after all others."""

from collections.abc import Iterator

import pytest
from running_cluster import RunningCluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """A running native cluster. A test that kills or stops a process starts it again before it ends."""
    with running_cluster() as running:
        yield running
