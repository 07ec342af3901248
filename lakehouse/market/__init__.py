"""What a market event is, in exact numbers.

One file for each word of the domain: `product`, `exact` (decimals as scaled integers), `time`
(microseconds UTC), `trade`, `quote`, `book`, `gap`, `quarantine`, `intake`, and `trade_ids` (sets of
ids as intervals). Nothing here reads or writes anything.
"""
