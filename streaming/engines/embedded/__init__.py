"""The engine that needs no server: three stages, each with its own offsets, each in a process of its own.

`stage` is the contract, `hot`, `archive` and `candles` are the stages, `decode` turns messages into rows.
A stage reads what is in the log, transforms it, and commits it together with its offsets; how often it is
asked to is the worker's business.
"""
