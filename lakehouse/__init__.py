"""The words, the rules and the stores of the lakehouse.

What an event is (`market`), what is computed from it (`candles`), where it is kept (`stores`), and the
settings. Nothing here knows Dagster, a socket or an exchange: those import this package, never the
other way round.
"""
