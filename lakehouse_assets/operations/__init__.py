"""Running the lakehouse: what is compared, what is kept small, what is watched, and who is told.

`reconciliation` compares the tables with each other, `maintenance` keeps each of them small,
`record_checks` says what it asks of those that the stream keeps about itself, `stream_topics` shows the
stream upstream of them. Each watching sensor is a file named after what it watches (`open_gaps`,
`refused_inputs`, `failed_runs`, `dead_workers`); all of them raise `alerts`. What belongs to market data is
in `market`.
"""
