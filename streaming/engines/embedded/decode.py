"""From messages of the log to rows: whole batches at once.

Trades and quotes are fixed records, so a batch is one numpy array over the joined payloads. What is decoded
here was written by the feed, so anything unexpected is an error and never skipped: it says which message.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.candles.minute import EXCHANGES
from lakehouse.market.book import BOOK_HEADER, BOOK_LEVEL, BOOK_RECORD_VERSION, BookKind, BookSide
from lakehouse.market.columns import (
    Int64s,
    UnknownCodeError,
    check_codes,
    days,
    decimals,
    times,
    wide_decimals,
    words,
)
from lakehouse.market.gap import Gap
from lakehouse.market.intake import IntakeCount
from lakehouse.market.product import MAX_LENGTH, is_product
from lakehouse.market.quarantine import Refused
from lakehouse.market.quote import NO_IMBALANCE, QUOTE_RECORD, QUOTE_RECORD_VERSION
from lakehouse.market.trade import REPLAY_RECORD, TRADE_RECORD, TRADE_RECORD_VERSION, Side, Source
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.schemas import BOOK, GAPS, INTAKE, PRICE, QUARANTINE, QUOTES, TRADES, Table
from streaming.spine import topics
from streaming.spine.contract import Batch, Partition

Records = npt.NDArray[np.void]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_SIDES: Final = [side.name.lower() for side in Side]
_SOURCES: Final = [Source(code).name.lower() if code in list(Source) else None for code in range(256)]
_KINDS: Final = [kind.name.lower() for kind in BookKind]
_BOOK_SIDES: Final = [side.name.lower() for side in BookSide]
_MID: Final = QUOTES.schema.field("mid").type
_IMBALANCE: Final = QUOTES.schema.field("imbalance").type


class MalformedMessageError(Exception):
    """A message of the log can't be read, so the stage can't go on.

    Attributes:
        partition: topic and number of the partition it is in.
        offset: its offset there.
    """

    def __init__(self, partition: Partition, offset: int, reason: str) -> None:
        super().__init__(
            f"message {offset} of {partition.topic}/{partition.number} can't be read: {reason}. Was it "
            "written by another version? Run the version that wrote it"
        )
        self.partition = partition
        self.offset = offset


class UnknownVersionError(MalformedMessageError):
    """A record has a version that this program doesn't know."""


class Products(NamedTuple):
    """The products of records: each record's is `names[codes[i]]`."""

    names: list[str]
    codes: npt.NDArray[np.int64]


def trade_records(batch: Batch, partition: Partition) -> Records:
    """Return a batch of `trades` as an array of `TRADE_RECORD`.

    Raises:
        MalformedMessageError: a message is no such record.
    """
    return _records(batch, partition, TRADE_RECORD, TRADE_RECORD_VERSION)


def quote_records(batch: Batch, partition: Partition) -> Records:
    """Return a batch of `quotes` as an array of `QUOTE_RECORD`.

    Raises:
        MalformedMessageError: a message is no such record.
    """
    return _records(batch, partition, QUOTE_RECORD, QUOTE_RECORD_VERSION)


def _records(batch: Batch, partition: Partition, kind: np.dtype[Any], version: int) -> Records:
    if set(map(len, batch.payloads)) - {kind.itemsize}:
        at = next(i for i, payload in enumerate(batch.payloads) if len(payload) != kind.itemsize)
        reason = f"{len(batch.payloads[at])} bytes, not {kind.itemsize}"
        raise MalformedMessageError(partition, batch.first_offset + at, reason)
    records = np.frombuffer(b"".join(batch.payloads), dtype=kind)
    _check_versions(records, version, batch, partition)
    with _located(batch, partition):
        check_codes(records["exchange"], EXCHANGES, "exchange")
    return records


def _check_versions(records: Records, version: int, batch: Batch, partition: Partition) -> None:
    others = records["version"] != version
    if others.any():
        at = int(others.argmax())
        reason = f"record version {int(records['version'][at])}, not {version}"
        raise UnknownVersionError(partition, batch.first_offset + at, reason)


def products(records: Records, batch: Batch, partition: Partition) -> Products:
    """Return the products of records.

    Raises:
        MalformedMessageError: a name is no product's.
    """
    raw = np.ascontiguousarray(records["product"])
    column = pa.Array.from_buffers(pa.binary(MAX_LENGTH), len(raw), [None, pa.py_buffer(raw)])
    encoded = column.dictionary_encode()
    # Not by to_numpy, which imports pandas: 50 MB and half a second in the hot stage's process.
    codes = np.frombuffer(encoded.indices.buffers()[1], dtype=np.int32, count=len(raw)).astype(np.int64)
    names = []
    for code, padded in enumerate(encoded.dictionary.to_pylist()):
        name = padded.rstrip(b"\0").decode("ascii", "replace")
        if not is_product(name):
            at = int(np.flatnonzero(codes == code)[0])
            raise MalformedMessageError(partition, batch.first_offset + at, f"product {name[:40]!r}")
        names.append(name)
    return Products(names, codes)


@contextmanager
def _located(batch: Batch, partition: Partition, of_row: Int64s | None = None) -> Iterator[None]:
    """Say which message an unknown code is in; `of_row` has each row's message, itself where None."""
    try:
        yield
    except UnknownCodeError as error:
        at = error.position if of_row is None else int(of_row[error.position])
        raise MalformedMessageError(partition, batch.first_offset + at, str(error)) from None


def trade_columns(batch: Batch, partition: Partition) -> TradeColumns:
    """Return a batch of `trades` as candles take them, in the order of the log.

    Raises:
        MalformedMessageError: a message is no trade record.
    """
    return _trade_columns(
        trade_records(batch, partition), batch, partition, np.asarray(batch.published_us, dtype=np.int64)
    )


def replayed_columns(number: int, batch: Batch, partition: Partition) -> TradeColumns:
    """Return a batch of `replay` as candles take it: the trades of one replay, in the order of the log.

    They were recorded when they came first, so that their candles are those of then.

    Raises:
        MalformedMessageError: a message is no replayed trade.
    """
    records = _records(batch, partition, REPLAY_RECORD, TRADE_RECORD_VERSION)
    recorded_us = np.ascontiguousarray(records["recorded_us"])
    trades = _trade_columns(records, batch, partition, recorded_us)
    own = records["replay"] == number
    return trades if own.all() else trades.where(own)


def _trade_columns(records: Records, batch: Batch, partition: Partition, recorded_us: Int64s) -> TradeColumns:
    names, codes = products(records, batch, partition)
    with _located(batch, partition):
        check_codes(records["taker_side"], _SIDES, "taker side")
    return TradeColumns(
        products=names,
        product=codes,
        trade_id=np.ascontiguousarray(records["trade_id"]),
        event_us=np.ascontiguousarray(records["event_us"]),
        price=np.ascontiguousarray(records["price"]),
        size=np.ascontiguousarray(records["size"]),
        taker_buys=records["taker_side"] == Side.BUY,
        late=records["late"] != 0,
        exchange=np.ascontiguousarray(records["exchange"]),
        recorded_us=recorded_us,
    )


def trade_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `trades` as rows of that table, in the order of the log.

    Raises:
        MalformedMessageError: a message is no trade record.
    """
    records = trade_records(batch, partition)
    columns = _columns_of_all(records, batch, partition)
    with _located(batch, partition):
        columns |= {
            "trade_id": pa.array(np.ascontiguousarray(records["trade_id"])),
            "price": decimals(records["price"], PRICE),
            "size": decimals(records["size"], PRICE),
            "taker_side": words(records["taker_side"], _SIDES, "taker side"),
            "late": pa.array(records["late"] != 0),
            "source": words(records["source"], _SOURCES, "source"),
        }
    return _table(TRADES, columns)


def quote_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `quotes` as rows of that table, in the order of the log.

    Raises:
        MalformedMessageError: a message is no quote record.
    """
    records = quote_records(batch, partition)
    columns = _columns_of_all(records, batch, partition)
    bid, ask, imbalance = (np.ascontiguousarray(records[name]) for name in ("bid", "ask", "imbalance"))
    # Half of a number with eight decimals has nine: times 5 at the next scale, unsigned to have room for it.
    mid = np.zeros((len(records), 2), dtype=np.int64)
    mid[:, 0] = ((bid.view(np.uint64) + ask.view(np.uint64)) * np.uint64(5)).view(np.int64)
    with _located(batch, partition):
        columns |= {
            "update_id": pa.array(np.ascontiguousarray(records["update_id"])),
            **{name: decimals(records[name], PRICE) for name in ("bid", "bid_size", "ask", "ask_size")},
            "spread": decimals(ask - bid, PRICE),
            "mid": wide_decimals(mid, _MID),
            "imbalance": decimals(imbalance, _IMBALANCE, empty=imbalance == NO_IMBALANCE),
            "source": words(records["source"], _SOURCES, "source"),
        }
    return _table(QUOTES, columns)


def book_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `book` as rows of that table: one for each level, in the order of the log.

    Raises:
        MalformedMessageError: a message is no book message.
    """
    lengths = np.fromiter(map(len, batch.payloads), dtype=np.int64, count=len(batch.payloads))
    header_bytes, level_bytes = BOOK_HEADER.itemsize, BOOK_LEVEL.itemsize
    if (lengths < header_bytes).any():
        at = int((lengths < header_bytes).argmax())
        raise MalformedMessageError(partition, batch.first_offset + at, f"only {int(lengths[at])} bytes")
    headers = np.frombuffer(b"".join([p[:header_bytes] for p in batch.payloads]), dtype=BOOK_HEADER)
    _check_versions(headers, BOOK_RECORD_VERSION, batch, partition)
    counts = headers["levels"].astype(np.int64)
    wrong = lengths != header_bytes + counts * level_bytes
    if wrong.any():
        at = int(wrong.argmax())
        reason = f"{int(lengths[at])} bytes for {int(counts[at])} levels"
        raise MalformedMessageError(partition, batch.first_offset + at, reason)
    levels = np.frombuffer(b"".join([p[header_bytes:] for p in batch.payloads]), dtype=BOOK_LEVEL)
    message = np.repeat(np.arange(len(headers)), counts)
    first_level = np.repeat(np.cumsum(counts) - counts, counts)
    columns = _columns_of_all(headers, batch, partition)
    with _located(batch, partition):
        columns |= {
            "kind": words(headers["kind"], _KINDS, "kind of book message"),
            "first_update_id": pa.array(np.ascontiguousarray(headers["first_update_id"])),
            "last_update_id": pa.array(np.ascontiguousarray(headers["last_update_id"])),
        }
    columns = {name: column.take(pa.array(message)) for name, column in columns.items()}
    with _located(batch, partition, message):
        columns |= {
            "level": pa.array((np.arange(len(levels)) - first_level).astype(np.int32)),
            "side": words(levels["side"], _BOOK_SIDES, "side of a level"),
            "price": decimals(levels["price"], PRICE),
            "size": decimals(levels["size"], PRICE),
        }
    return _table(BOOK, columns)


def _columns_of_all(records: Records, batch: Batch, partition: Partition) -> dict[str, pa.Array]:
    """Return the columns that trades, quotes and books share."""
    names, codes = products(records, batch, partition)
    event_us = np.ascontiguousarray(records["event_us"])
    with _located(batch, partition):
        exchange = words(records["exchange"], EXCHANGES, "exchange")
    return {
        "product": words(codes, names),
        "day": days(event_us),
        "event_time": times(event_us),
        "exchange": exchange,
        "received_at": times(np.ascontiguousarray(records["received_us"])),
        **_columns_of_the_log(batch, partition),
    }


def _columns_of_the_log(batch: Batch, partition: Partition) -> dict[str, pa.Array]:
    count = len(batch.payloads)
    return {
        "recorded_at": times(np.asarray(batch.published_us, dtype=np.int64)),
        "spine_partition": pa.array(np.full(count, partition.number, dtype=np.int32)),
        "spine_offset": pa.array(np.arange(batch.first_offset, batch.next_offset, dtype=np.int64)),
    }


def gap_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `gaps` as rows of that table; a gap's day is that of the trade before it.

    Raises:
        MalformedMessageError: a message is no gap.
    """
    gaps = _structs(batch, partition, Gap)
    after_us = np.array([gap.after_us for gap in gaps], dtype=np.int64)
    before_us = np.array([gap.before_us for gap in gaps], dtype=np.int64)
    noticed_us = np.array([gap.noticed_us for gap in gaps], dtype=np.int64)
    known_us = np.where(after_us != 0, after_us, np.where(before_us != 0, before_us, noticed_us))
    return _table(
        GAPS,
        {
            "product": pa.array([gap.product for gap in gaps], pa.string()),
            "day": days(known_us),
            "first_trade_id": pa.array([gap.first_trade_id for gap in gaps], pa.int64()),
            "last_trade_id": pa.array([gap.last_trade_id for gap in gaps], pa.int64()),
            "status": pa.array([gap.status.value for gap in gaps], pa.string()),
            "found_by": pa.array([gap.found_by.value for gap in gaps], pa.string()),
            "after": times(after_us, empty=after_us == 0),
            "before": times(before_us, empty=before_us == 0),
            "detail": pa.array([gap.detail for gap in gaps], pa.string()),
            "exchange": pa.array([EXCHANGES[gap.exchange] for gap in gaps], pa.string()),
            "noticed_at": times(noticed_us),
            **_columns_of_the_log(batch, partition),
        },
    )


def quarantine_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `quarantine` as rows of that table; the day is that of the receipt.

    Raises:
        MalformedMessageError: a message is no refused input.
    """
    refused = _structs(batch, partition, Refused)
    received_us = np.array([one.received_us for one in refused], dtype=np.int64)
    return _table(
        QUARANTINE,
        {
            "day": days(received_us),
            "product": pa.array([one.product for one in refused], pa.string()),
            "reason": pa.array([one.reason.value for one in refused], pa.string()),
            "detail": pa.array([one.detail for one in refused], pa.string()),
            "frame": pa.array([one.frame for one in refused], pa.binary()),
            "exchange": pa.array([EXCHANGES[one.exchange] for one in refused], pa.string()),
            "received_at": times(received_us),
            **_columns_of_the_log(batch, partition),
        },
    )


def intake_rows(batch: Batch, partition: Partition) -> pa.Table:
    """Return a batch of `intake` as rows of that table.

    Raises:
        MalformedMessageError: a message is no count of inputs.
    """
    counts = _structs(batch, partition, IntakeCount)
    numbers = ("received", "accepted", "duplicates", "quarantined", "late")
    return _table(
        INTAKE,
        {
            "product": pa.array([count.product for count in counts], pa.string()),
            "day": pa.array([count.day for count in counts], pa.date32()),
            "kind": pa.array([count.kind for count in counts], pa.string()),
            **{name: pa.array([getattr(count, name) for count in counts], pa.int64()) for name in numbers},
            "exchange": pa.array([EXCHANGES[count.exchange] for count in counts], pa.string()),
            **_columns_of_the_log(batch, partition),
        },
    )


def _structs(batch: Batch, partition: Partition, kind: type[_Struct]) -> list[_Struct]:
    decoder = msgspec.msgpack.Decoder(kind)
    structs: list[_Struct] = []
    try:
        for payload in batch.payloads:
            structs.append(decoder.decode(payload))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        at = batch.first_offset + len(structs)
        raise MalformedMessageError(partition, at, f"no {kind.__name__} ({error})") from error
    return structs


def _table(table: Table, columns: dict[str, pa.Array]) -> pa.Table:
    return pa.table([columns[name] for name in table.schema.names], schema=table.schema)


ROWS: Final[Mapping[str, tuple[Table, Callable[[Batch, Partition], pa.Table]]]] = {
    topics.TRADES: (TRADES, trade_rows),
    topics.QUOTES: (QUOTES, quote_rows),
    topics.BOOK: (BOOK, book_rows),
    topics.GAPS: (GAPS, gap_rows),
    topics.QUARANTINE: (QUARANTINE, quarantine_rows),
    topics.INTAKE: (INTAKE, intake_rows),
}
"""For each archived topic its table, and what turns a batch into rows of it."""
