"""Reconciliation: where two accounts of the same product-day disagree, row by row and column by column.

`breaks` says what a disagreement is; `comparison` finds those of any two queries with the same key;
`candles`, `archive` and `schema_drift` are the accounts that are compared. Everything here reads and returns;
which days are compared, and what is done about it, is for the asset.
"""
