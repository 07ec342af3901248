"""What tests are shared out among processes, and in which order (`make test` runs two, `pytest` alone one).

A file is one piece, so that what it starts for all its tests is started once. All that needs the cluster is
one piece as well: one process does it from the beginning to the end, the other one all that takes long
outside, and then both do what is left. What takes longest comes first, so that they end together.
"""

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).parent

_CLUSTER = "the cluster"
_WITH_CLUSTER = ("cluster/", "end_to_end/test_up_cluster.py", "faults/test_cluster_losses.py")

_IN_ORDER = (
    *_WITH_CLUSTER,
    *("end_to_end/test_dagster_ui.py", "end_to_end/", "faults/", "lakehouse_assets/", "streaming/"),
)
"""Folders and files, those that take longest first; all others come after them."""


def turn(path: Path) -> int:
    """Return which turn a test's file has where several processes run the tests."""
    name = path.relative_to(TESTS).as_posix()
    return next((number for number, start in enumerate(_IN_ORDER) if name.startswith(start)), len(_IN_ORDER))


def uses_cluster(path: Path) -> bool:
    """Whether a test's file starts the cluster, or the folder it is in does."""
    return turn(path) < len(_WITH_CLUSTER)


class InPieces(LoadFileScheduling):
    """Gives a process its next piece when it is about to have none, in the order of `turn`."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would order them by their number of tests
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _CLUSTER if uses_cluster(self._root / file) else file
