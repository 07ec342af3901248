"""Iggy's requests that its Python client has no method for, as bytes of its binary protocol."""

from collections.abc import Mapping
from struct import pack, unpack
from typing import Final

GET_OFFSET: Final = 120
STORE_OFFSET: Final = 121
DELETE_OFFSET: Final = 122
CREATE_TOPIC: Final = 302
DELETE_SEGMENTS: Final = 503

_SINGLE_CONSUMER: Final = b"\x01"
_TEXT: Final = 2
_BY_QUORUM: Final = b"\x01"
"""Answer once the offset is committed, not as soon as it is in memory."""


def get_offset(consumer: str, stream: str, topic: str, partition: int) -> bytes:
    """Ask for the offset a consumer stored last; `stored_offset` reads the answer."""
    return _SINGLE_CONSUMER + _name(consumer) + _name(stream) + _name(topic) + pack("<BI", 1, partition)


def stored_offset(answer: bytes) -> int | None:
    """Return the offset of the last message a consumer has done with; None where it stored none."""
    if not answer:
        return None
    _partition, _current, stored = unpack("<IQQ", answer)
    return int(stored)


def store_offset(consumer: str, stream: str, topic: str, partition: int, offset: int) -> bytes:
    """Store the offset of the last message a consumer has done with."""
    return get_offset(consumer, stream, topic, partition) + pack("<Q", offset) + _BY_QUORUM


def delete_offset(consumer: str, stream: str, topic: str, partition: int) -> bytes:
    """Forget what a consumer stored."""
    return get_offset(consumer, stream, topic, partition) + _BY_QUORUM


def delete_segments(stream: str, topic: str, partition: int, count: int) -> bytes:
    """Delete the oldest segments that are full, as far as no consumer stored an offset before their end."""
    return _name(stream) + _name(topic) + pack("<II", partition, count)


def create_topic(stream: str, topic: str, partitions: int, options: Mapping[str, str]) -> bytes:
    """Create a topic with exactly these options."""
    name = topic.encode()
    request = _name(stream) + pack("<IB", partitions, len(name)) + name
    return request + b"".join(_text(key) + _text(value) for key, value in options.items())


def _name(name: str) -> bytes:
    encoded = name.encode()
    return pack("<BB", _TEXT, len(encoded)) + encoded


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pack("<BI", _TEXT, len(encoded)) + encoded
