"""Trying a step again after pauses that double: for what passes by itself, like an exchange that is away."""

from typing import Final

import dagster as dg

RETRIES: Final = 5
"""Attempts after the first: with their pauses they outlast an outage of seven minutes."""
FIRST_WAIT_SECONDS: Final = 15


def another_attempt(context: dg.AssetExecutionContext, error: Exception, kept: str = "") -> dg.RetryRequested:
    """Say in the run's log that the step will be tried again, and return what to raise.

    Args:
        context: of the run.
        error: what went wrong.
        kept: a sentence that says what the failed attempt leaves behind.
    """
    wait = FIRST_WAIT_SECONDS * 2**context.retry_number
    said = " ".join(f"{text}." for text in (str(error).rstrip("."), kept) if text)
    context.log.warning(f"{said} Next attempt in {wait} s")
    return dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait)
