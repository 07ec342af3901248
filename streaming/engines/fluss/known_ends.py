"""Where the logs of Fluss ended when they were last looked at: shorter ones have lost what was acknowledged.

It is kept in a file too, because a bridge may die together with the servers that lose rows.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

Ends = Mapping[tuple[str, int], int]
"""For each bucket of each log the offset after its last row."""


class _Log(msgspec.Struct, frozen=True):
    table_id: int
    """A table that was dropped and created again has another: it lost nothing, it is a new one."""
    ends: dict[int, int]


class KnownEnds:
    """The ends as they were last remembered.

    Args:
        file: where they are kept; nowhere where None.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file: Final = file
        self._logs: dict[str, _Log] = {}
        if file is not None:
            # Absent at a first start, damaged by a power cut: as if nothing had been remembered.
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                self._logs = msgspec.json.decode(file.read_bytes(), type=dict[str, _Log])

    def remember(self, ends: Ends, table_ids: Mapping[str, int]) -> None:
        """Replace what is remembered.

        Raises:
            OSError: the file can't be written.
        """
        self._logs = {
            name: _Log(table_id, {bucket: end for (log, bucket), end in ends.items() if log == name})
            for name, table_id in table_ids.items()
        }
        if self._file is not None:
            partial = self._file.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(self._logs))
            partial.replace(self._file)

    def are_of(self, table_ids: Mapping[str, int]) -> bool:
        """Tell whether these are the tables whose ends are remembered."""
        return {name: log.table_id for name, log in self._logs.items()} == dict(table_ids)

    def lost(self, ends: Ends, table_ids: Mapping[str, int]) -> dict[tuple[str, int], int]:
        """Return by how many rows each log is shorter than it was; those that are not, are left out."""
        return {
            (name, bucket): known - ends[name, bucket]
            for name, log in self._logs.items()
            if table_ids.get(name) == log.table_id
            for bucket, known in log.ends.items()
            if (name, bucket) in ends and ends[name, bucket] < known
        }
