"""How a book snapshot or update lies in the spine: a header, then its levels."""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import numpy as np

from lakehouse.market.product import MAX_LENGTH
from lakehouse.market.trade import Exchange


class BookKind(IntEnum):
    """A snapshot replaces the whole book; an update changes levels."""

    SNAPSHOT = 0
    UPDATE = 1


class BookSide(IntEnum):
    """The side of a level."""

    BID = 0
    ASK = 1


BOOK_HEADER: Final = np.dtype(
    [
        ("product", f"S{MAX_LENGTH}"),
        ("event_us", "<i8"),
        ("received_us", "<i8"),
        ("first_update_id", "<i8"),
        ("last_update_id", "<i8"),
        ("kind", "u1"),
        ("exchange", "u1"),
        ("version", "<u2"),
        ("levels", "<u4"),
    ]
)
"""The first 56 bytes of a book message; `levels` is the number of `BOOK_LEVEL`s that follow."""

BOOK_LEVEL: Final = np.dtype([("price", "<i8"), ("size", "<i8"), ("side", "<i8")])
"""One level, 24 bytes: price and size scaled by 10⁸, side a `BookSide`. Size 0 removes the level."""

BOOK_RECORD_VERSION: Final = 1

_HEADER = struct.Struct(f"<{MAX_LENGTH}s4q2BHI")


def pack_book(
    *,
    product: str,
    kind: BookKind,
    exchange: Exchange,
    event_us: int,
    received_us: int,
    first_update_id: int,
    last_update_id: int,
    bids: Iterable[tuple[int, int]],
    asks: Iterable[tuple[int, int]],
) -> bytes:
    """Return a book message; the levels keep their order, bids first."""
    numbers = [number for price, size in bids for number in (price, size, BookSide.BID)]
    numbers += [number for price, size in asks for number in (price, size, BookSide.ASK)]
    header = _HEADER.pack(
        product.encode(),
        event_us,
        received_us,
        first_update_id,
        last_update_id,
        kind,
        exchange,
        BOOK_RECORD_VERSION,
        len(numbers) // 3,
    )
    return header + struct.pack(f"<{len(numbers)}q", *numbers)
