"""Exact numbers as Arrow columns and back: whole arrays at once, no value touched by a float.

Inside, a price is an int64 at scale 10⁻⁸ and a time an int64 of microseconds; in tables they are decimals
and timestamps. An Arrow decimal is a 128-bit integer with a scale, so both ways only move bytes.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.time import DAY_US

Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.integer[Any]]


class UnknownCodeError(ValueError):
    """A code in the data that stands for nothing; `position` is where the first one is."""

    def __init__(self, meaning: str, code: int, position: int) -> None:
        super().__init__(f"{meaning} {code} is not known")
        self.position = position


def decimals(
    values: Int64s, kind: pa.Decimal128Type, *, empty: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return scaled integers as decimals of `kind`, whose scale they already have.

    Args:
        values: each below 10 to the power of the kind's precision.
        kind: a 128-bit decimal type.
        empty: True where there is no value.
    """
    limbs = np.empty((len(values), 2), dtype=np.int64)
    limbs[:, 0] = values
    limbs[:, 1] = values >> 63  # the sign
    return wide_decimals(limbs, kind, empty=empty)


def wide_decimals(
    limbs: npt.NDArray[np.int64], kind: pa.Decimal128Type, *, empty: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return 128-bit integers as decimals of `kind`: `limbs` has the low 64 bits first, shape (n, 2)."""
    valid = None if empty is None else pa.py_buffer(np.packbits(~empty, bitorder="little").tobytes())
    return pa.Array.from_buffers(kind, len(limbs), [valid, pa.py_buffer(np.ascontiguousarray(limbs))])


def scaled_integers(column: pa.ChunkedArray | pa.Array) -> Int64s:
    """Return a column of `DECIMAL(18, s)` without empty values as integers at its scale.

    Raises:
        ValueError: a value is empty, or the type is wider than int64.
    """
    if not pa.types.is_decimal128(column.type) or column.type.precision > 18:
        raise ValueError(f"{column.type} does not fit 64 bits")
    if column.null_count:
        raise ValueError("a price or size is empty")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.int64)[
            2 * chunk.offset : 2 * (chunk.offset + len(chunk)) : 2
        ]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def times(us: Int64s, *, empty: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return microseconds since 1970 as UTC timestamps."""
    return pa.array(us, mask=empty).view(pa.timestamp("us", tz="UTC"))


def microseconds(column: pa.ChunkedArray | pa.Array) -> Int64s:
    """Return a column of UTC timestamps without empty values as microseconds since 1970."""
    whole: Int64s = pc.cast(column, pa.int64()).to_numpy()
    return whole


def days(us: Int64s) -> pa.Array:
    """Return the UTC days that times lie in."""
    return pa.array((us // DAY_US).astype(np.int32)).view(pa.date32())


def check_codes(codes: Codes, vocabulary: Sequence[str | None], meaning: str) -> None:
    """Make sure that each code stands for a word.

    Args:
        codes: integers.
        vocabulary: what each code stands for; None for codes that stand for nothing.
        meaning: what a code is, for the error.

    Raises:
        UnknownCodeError: a code stands for nothing.
    """
    if len(codes) == 0:
        return
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest >= 0 and highest < len(vocabulary) and None not in vocabulary:
        return
    used = np.flatnonzero(np.bincount(codes)) if lowest >= 0 and highest < 2**16 else np.unique(codes)
    for code in used.tolist():
        if not 0 <= code < len(vocabulary) or vocabulary[code] is None:
            raise UnknownCodeError(meaning, code, int(np.flatnonzero(codes == code)[0]))


def words(codes: Codes, vocabulary: Sequence[str | None], meaning: str = "code") -> pa.Array:
    """Return `vocabulary[code]` for each code; see `check_codes`.

    Raises:
        UnknownCodeError: a code stands for nothing.
    """
    check_codes(codes, vocabulary, meaning)
    texts = pa.array([text or "" for text in vocabulary], pa.string())
    return texts.take(pa.array(codes))


def codes(column: pa.ChunkedArray, meaning: type[IntEnum]) -> npt.NDArray[np.uint8]:
    """Return what the words of a column stand for: members of `meaning`, whose names are the words.

    Raises:
        ValueError: a word stands for nothing.
    """
    encoded = column.combine_chunks().dictionary_encode()
    try:
        members = [meaning[word.upper()] for word in encoded.dictionary.to_pylist()]
    except KeyError as error:
        raise ValueError(f"{error} is no {meaning.__name__.lower()} of an archived trade") from None
    values: npt.NDArray[np.uint8] = np.array(members, dtype=np.uint8)[encoded.indices.to_numpy()]
    return values
