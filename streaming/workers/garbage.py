"""Keeping Python's garbage collector out of the way of messages."""

import gc


def collect_seldom() -> None:
    """Leave what is loaded by now out of collections, and collect a hundred times as seldom.

    Messages are many small objects that die young and hold no cycles. A full collection over all that the
    libraries loaded takes 0.1 to 0.6 s, in which everything that just came waits. Call it once, when the
    process is set up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
