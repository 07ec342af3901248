"""Sealing a product's day: what is missing is fetched over REST, then the day becomes one sorted file.

`plan` says which ids are missing and what to ask for, `fetch` asks the exchange, `spool` keeps its answers
until the day is sealed, `rows` makes table rows of them, `day` puts it together under the table's lock,
`gap_rows` keeps the gaps table honest, `due` says which days are over and not sealed. Nothing here knows
Dagster.
"""
