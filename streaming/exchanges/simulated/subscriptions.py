"""Reading what a client asks for: `subscribe` and `unsubscribe`, or why it can't be understood."""

from collections.abc import Sequence
from enum import IntFlag
from typing import Any, Literal, NamedTuple

import msgspec


class Channel(IntFlag):
    """The channels this exchange has; a client's channels of one product are a combination."""

    MATCHES = 1
    TICKER = 2
    HEARTBEAT = 4
    LEVEL2 = 8


CHANNEL_NAMES = {
    "matches": Channel.MATCHES,
    "ticker": Channel.TICKER,
    "heartbeat": Channel.HEARTBEAT,
    "level2_batch": Channel.LEVEL2,
}

MOST_MESSAGE_BYTES = 100_000


class BadRequestError(ValueError):
    """A client's message makes no sense here.

    Attributes:
        message: Coinbase's headline of the error.
        reason: what is wrong.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(f"{message}: {reason}")
        self.message = message
        self.reason = reason


class Request(NamedTuple):
    """A client's wish: these pairs of channel and product, to be added or taken away."""

    action: Literal["subscribe", "unsubscribe"]
    pairs: list[tuple[Channel, str]]


def parse_request(frame: str | bytes, products: Sequence[str]) -> Request:
    """Return what a client's message asks for.

    An `unsubscribe` without products means all of them.

    Args:
        frame: the message.
        products: the exchange's products.

    Raises:
        BadRequestError: not JSON, another type, an unknown channel or product.
    """
    try:
        message = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError("Malformed JSON", str(error)) from None
    if not isinstance(message, dict):
        raise BadRequestError("Malformed JSON", "a message is an object")
    action = message.get("type")
    if action not in ("subscribe", "unsubscribe"):
        raise BadRequestError("Type has to be either subscribe or unsubscribe", f"it is {str(action)[:40]!r}")
    failed = f"Failed to {action}"
    everywhere = _products(message.get("product_ids"), products, failed)
    channels = message.get("channels")
    if not isinstance(channels, list) or not channels:
        raise BadRequestError(failed, "channels is a list of at least one channel")
    pairs = []
    for entry in channels:
        name, wanted = _channel(entry, everywhere, products, failed)
        if not wanted and action == "unsubscribe":
            wanted = list(products)
        if not wanted:
            raise BadRequestError(failed, f"no product_ids for the channel {name}")
        pairs += [(CHANNEL_NAMES[name], product) for product in wanted]
    return Request(action, pairs)


def _channel(
    entry: Any, everywhere: list[str], products: Sequence[str], failed: str
) -> tuple[str, list[str]]:
    name, wanted = entry, everywhere
    if isinstance(entry, dict):
        name = entry.get("name")
        if "product_ids" in entry:
            wanted = _products(entry["product_ids"], products, failed)
    if not isinstance(name, str) or name not in CHANNEL_NAMES:
        known = ", ".join(CHANNEL_NAMES)
        raise BadRequestError(failed, f"{str(name)[:40]!r} is not a channel; there are {known}")
    return name, wanted


def _products(value: Any, products: Sequence[str], failed: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequestError(failed, "product_ids is a list")
    for product in value:
        if not isinstance(product, str) or product not in products:
            raise BadRequestError(failed, f"{str(product)[:40]} is not a valid product")
    return list(dict.fromkeys(value))
