"""The Dagster side: every table as a partitioned, checked, backfillable asset.

`definitions` assembles; `partitions`, `resources`, `partition_results`, `retries` and `plots` are shared.
Each subject has a folder, a group in Dagster, with its assets, checks, sensors and schedules side by side:
`market`, `operations`, `replay`, and, once they come, `ledger`, `patterns` and `analyst`.
"""
