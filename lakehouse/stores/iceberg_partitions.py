"""What the manifests say of an Iceberg table's partitions, without opening a data file."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.types import LongType

from lakehouse.stores.iceberg_commit import IcebergStoreError
from lakehouse.stores.iceberg_files import PartitionKey
from lakehouse.stores.schemas import Table


@dataclass(frozen=True)
class PartitionStats:
    """What the manifests say of a partition; trade ids are None where the table has none."""

    day: date
    product: str | None
    rows: int
    files: int
    bytes: int
    min_trade_id: int | None
    max_trade_id: int | None


def may_hold(key: PartitionKey, product: str | None, day: date | None) -> bool:
    """Tell whether a file of this partition can hold rows of a product and day (None: of any)."""
    return (day is None or key.day in (None, day)) and (product is None or key.product in (None, product))


def statistics(table: Table, ids: Mapping[str, int], files: Iterable[DataFile]) -> list[PartitionStats]:
    """Return what each partition holds, ordered by day and product.

    Raises:
        IcebergStoreError: the table isn't partitioned by day.
    """
    if "day" not in table.partition_by:
        raise IcebergStoreError(f"the manifests of {table.name} know no days: count its rows")
    grouped: dict[PartitionKey, list[DataFile]] = {}
    for file in files:
        grouped.setdefault(PartitionKey.of(file), []).append(file)
    found = [_stats(key, members, ids.get("trade_id", 0)) for key, members in grouped.items()]
    return sorted(found, key=lambda stats: (stats.day, stats.product or ""))


def in_order(files: Collection[DataFile], column: int, rows: int) -> Iterator[list[DataFile]]:
    """Yield files in groups, in the order of a column: what a group holds is below what the next one holds.

    Args:
        files: those of a partition.
        column: the number of a column of 64-bit values whose bounds stand in the manifests.
        rows: a group ends once it has so many, if it can.

    Raises:
        IcebergStoreError: the manifests don't say a file's bounds.
    """
    told = {file.file_path: _told(file, column) for file in files}
    group: list[DataFile] = []
    held = highest = 0
    for file in sorted(files, key=lambda file: told[file.file_path]):
        lowest_of_file, highest_of_file = told[file.file_path]
        if held >= rows and lowest_of_file > highest:
            yield group
            group, held = [], 0
        group.append(file)
        held += file.record_count
        highest = max(highest, highest_of_file)
    if group:
        yield group


def bounds_of(file: DataFile, column: int) -> tuple[int, int] | None:
    """Return the lowest and highest value of a column of 64-bit integers in a file, None where not told."""
    lower, upper = (file.lower_bounds or {}).get(column), (file.upper_bounds or {}).get(column)
    if lower is None or upper is None:
        return None
    return int(from_bytes(LongType(), lower)), int(from_bytes(LongType(), upper))


def _told(file: DataFile, column: int) -> tuple[int, int]:
    found = bounds_of(file, column)
    if found is None:
        raise IcebergStoreError(
            f"the manifests don't say the bounds of column {column} in {file.file_path}: another program "
            "wrote it without them; write the partition again"
        )
    return found


def _stats(key: PartitionKey, files: list[DataFile], trade_id: int) -> PartitionStats:
    told = [_told(file, trade_id) for file in files if trade_id]
    assert key.day is not None  # seen by the caller
    return PartitionStats(
        key.day,
        key.product,
        rows=sum(file.record_count for file in files),
        files=len(files),
        bytes=sum(file.file_size_in_bytes for file in files),
        min_trade_id=min((lowest for lowest, _ in told), default=None),
        max_trade_id=max((highest for _, highest in told), default=None),
    )
