"""The Dagster side: every table as a partitioned, checked, backfillable asset.

`definitions` only assembles. `partitions` and `resources` are shared; each subject has a folder with
its assets, checks, sensors and schedules side by side.
"""
