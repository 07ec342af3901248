"""One cluster for all tests of this folder, stopped when none of them is left."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running_cluster import RunningCluster, running_cluster

HERE = Path(__file__).parent
STARTED = pytest.StashKey[ExitStack]()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[RunningCluster]:
    """A running native cluster. A test that kills or stops a process starts it again before it ends."""
    with ExitStack() as started:
        pytestconfig.stash[STARTED] = started
        yield started.enter_context(running_cluster())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Stop the cluster after the last test of this folder: idle it would take half a core from the others.

    The order of the tests (`pieces.py`) has them one after the other.
    """
    yield
    if (nextitem is None or HERE not in nextitem.path.parents) and STARTED in item.config.stash:
        item.config.stash[STARTED].close()
