"""Products: what is traded, such as BTC-USD."""

import re

_PATTERN = re.compile(r"[A-Z0-9]{2,10}-[A-Z]{3,5}")

MAX_LENGTH = 16
"""Length in bytes of the longest possible product name."""


class InvalidProductError(ValueError):
    """A name that is not a product's. It must not reach a path, a table name or a filter."""


def is_product(name: str) -> bool:
    """Tell whether `name` has a product's form, `BASE-QUOTE`."""
    return _PATTERN.fullmatch(name) is not None


def checked_product(name: str) -> str:
    """Return `name` if it has a product's form.

    Raises:
        InvalidProductError: for anything else; the message shows at most 40 characters of it.
    """
    if not is_product(name):
        raise InvalidProductError(f"{name[:40]!r} is not a product: write BASE-QUOTE, such as BTC-USD")
    return name
