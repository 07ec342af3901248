"""Candles as a pure function of the set of their trades.

`minute` turns trades into one aggregate for each minute and merges aggregates, `wide` sums exactly in 128
bits, `rebuild` makes a day's candles from archived trades. Nothing here reads or writes a table, knows the
log, or remembers anything.
"""
