"""A REST answer that is a list of trades, record by record: one that can't be read costs no other."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from lakehouse.market.quarantine import RefusedError
from lakehouse.market.trade import Trade
from streaming.exchanges.contract import RestError
from streaming.exchanges.fields import json_object

_decode_records: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_records(
    product: str, content: bytes, trade_of: Callable[[Any], Trade]
) -> tuple[list[Trade], list[tuple[bytes, RefusedError]]]:
    """Return the trades of an answer, and the records that are none with the reason.

    Args:
        product: whose trades were asked for.
        content: the answer's body.
        trade_of: reads one record, a JSON object, as the exchange writes it.

    Raises:
        RestError: the answer is no JSON list.
    """
    try:
        records = _decode_records(content)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RestError(f"the trades of {product} are no JSON list: {error}") from error
    trades: list[Trade] = []
    refused: list[tuple[bytes, RefusedError]] = []
    for record in records:
        raw = bytes(record)
        try:
            trades.append(trade_of(json_object(raw.decode("utf-8", "surrogateescape"))))
        except RefusedError as error:
            refused.append((raw, error))
    return trades, refused
