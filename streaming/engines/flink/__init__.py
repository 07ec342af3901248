"""The engine of the cluster profile: Flink SQL that makes the tables from what Fluss holds.

Here: the SQL, the clients of Flink's two REST interfaces, and what keeps, upgrades and follows jobs. Rows are
decoded by the bridge (`engines/fluss`); the tables are created and read by `lakehouse.stores`.
"""
