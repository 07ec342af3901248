import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from lakehouse.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "simulated").create()


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes that start with the libraries loaded, without a thread of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lakehouse.stores.iceberg", "lakehouse.stores.paimon"])
    return context
