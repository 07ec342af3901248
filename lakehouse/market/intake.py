"""The count of inputs: every one is accepted, a duplicate, or quarantined."""

from datetime import date

import msgspec

from lakehouse.market.trade import Exchange


class IntakeCount(msgspec.Struct, frozen=True):
    """How many inputs of one kind ended how, in one published batch.

    `kind` is `trade`, `ticker`, `book`, `heartbeat`, `control` or `unknown` (refused before its kind was
    clear). `product` is empty where none could be read, `day` is the UTC day of the event, or of the
    receipt where there is none. `received` is counted at the door, the others at the three exits, so
    that `received == accepted + duplicates + quarantined` is a statement and not a definition. `late`
    counts those of the accepted trades whose minute was over.
    """

    exchange: Exchange
    product: str
    day: date
    kind: str
    received: int
    accepted: int
    duplicates: int
    quarantined: int
    late: int
