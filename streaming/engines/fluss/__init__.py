"""The bridge from the log to Fluss: what Flink reads and what the hot store shows.

Nothing here makes a table of the lakehouse; that is Flink's (`streaming.engines.flink`).
"""
