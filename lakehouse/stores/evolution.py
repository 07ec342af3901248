"""How a table that is there becomes what `schemas` says: columns added, widened, renamed, let be empty.

Only what leaves every old row readable as it is: a new column that may be empty, a wider type, a new name
that `schemas` records, a column that was never empty and now may be. The stores carry it out; no data file
is written again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.stores.schemas import Table

_DECIMAL: Final = re.compile(r"decimal\((\d+), ?(\d+)\)", re.IGNORECASE)
_WIDER_INTEGERS: Final = {("int", "long"), ("INT", "BIGINT")}


class OtherColumnsError(Exception):
    """A table differs by more than can be evolved; the text says by what."""


@dataclass(frozen=True)
class Column:
    """A column as a store describes it: name, type in the store's words, and whether it may be empty."""

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Evolution:
    """What has to be done to a table, in this order."""

    rename: Sequence[tuple[str, str]]
    """Old and new name."""
    widen: Sequence[str]
    """Columns that get a wider type."""
    relax: Sequence[str]
    """Columns that may be empty from now on."""
    add: Sequence[tuple[str, str | None]]
    """New columns, each with the column that it follows (None: it is the first)."""

    def __bool__(self) -> bool:
        return bool(self.rename or self.widen or self.relax or self.add)


def evolution(table: Table, there: Sequence[Column], wanted: Sequence[Column]) -> Evolution:
    """Return what makes the columns that are there those that are wanted.

    Raises:
        OtherColumnsError: they differ by more than columns that may be empty, wider types and recorded
                names.
    """
    present = {column.name for column in there}
    by_name = {column.name: column for column in wanted}
    rename = [(old, new) for old, new in table.renamed if old in present and new not in present]
    renamed = dict(rename)
    now = {renamed.get(column.name, column.name): column for column in there}
    if unknown := [name for name in now if name not in by_name]:
        raise OtherColumnsError(f"it has {', '.join(unknown)}, which this version doesn't know")
    if [name for name in by_name if name in now] != list(now):
        raise OtherColumnsError("its columns are in another order")
    widen, relax = [], []
    for name, before in now.items():
        after = by_name[name]
        if before.optional and not after.optional:
            raise OtherColumnsError(f"{name} may be empty in it")
        if after.optional and not before.optional:
            relax.append(name)
        if before.kind != after.kind:
            if not _is_wider(before.kind, after.kind):
                raise OtherColumnsError(f"{name} is {before.kind} in it, not {after.kind}")
            widen.append(name)
    add: list[tuple[str, str | None]] = []
    for at, column in enumerate(wanted):
        if column.name not in now:
            if not column.optional:
                raise OtherColumnsError(f"it lacks {column.name}, which must not be empty")
            add.append((column.name, wanted[at - 1].name if at else None))
    return Evolution(rename, widen, relax, add)


def _is_wider(before: str, after: str) -> bool:
    old, new = _DECIMAL.fullmatch(before), _DECIMAL.fullmatch(after)
    if old is not None and new is not None:
        return old[2] == new[2] and int(old[1]) < int(new[1])
    return (before, after) in _WIDER_INTEGERS
