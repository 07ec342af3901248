"""What was refused, why, and its raw bytes."""

from enum import StrEnum

import msgspec

from lakehouse.market.trade import Exchange


class Reason(StrEnum):
    """Why an input was refused."""

    NOT_TEXT = "not_text"
    """Bytes that are not UTF-8, or a binary frame."""
    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    """JSON, but a required field is missing, of another type, or given twice."""
    UNKNOWN_PRODUCT = "unknown_product"
    """A name that is no product's, or a product that is not configured."""
    BAD_NUMBER = "bad_number"
    """Not finite, not positive where it must be, or not exact in `DECIMAL(18, 8)`."""
    BAD_TIME = "bad_time"
    """No time, or one before 2009 or more than a day ahead of the receiver's clock."""
    BAD_ID = "bad_id"
    """A trade or update id that is not a positive 63-bit integer."""
    CROSSED_BOOK = "crossed_book"
    """A snapshot whose best bid is not below its best ask, or a ticker whose bid is above its ask."""
    TOO_LARGE = "too_large"
    """Larger than any message an exchange sends."""


class Refused(msgspec.Struct, frozen=True):
    """One refused input. `product` is empty where none could be read; `frame` is complete."""

    exchange: Exchange
    product: str
    reason: Reason
    detail: str
    received_us: int
    frame: bytes


class RefusedError(ValueError):
    """Raised by a decoder: this frame goes to quarantine.

    Attributes:
        reason: why.
        detail: one sentence for a person.
        product: the product concerned, or empty.
        kind: the kind of input, as `IntakeCount` names it.
    """

    def __init__(self, reason: Reason, detail: str, product: str = "", kind: str = "unknown") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.product = product
        self.kind = kind
