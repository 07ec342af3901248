"""What a sensor remembers from tick to tick: a typed value as JSON, never trusted to be readable."""

from typing import TypeVar

import msgspec

Remembered = TypeVar("Remembered", bound=msgspec.Struct)


def decoded(text: str | None, kind: type[Remembered]) -> Remembered:
    """Return what a cursor says; what is remembered at first where there is none or it can't be read."""
    try:
        return msgspec.json.decode(text or "{}", type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        return kind()


def encoded(value: msgspec.Struct) -> str:
    """Return a value as a cursor."""
    return msgspec.json.encode(value).decode()
