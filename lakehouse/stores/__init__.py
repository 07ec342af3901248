"""How tables are opened, read and written.

`schemas` says what each table holds, `lock` keeps writers one at a time; `iceberg`, `paimon` and `hot`
are the stores, `sql` reads all of them. Every table is read through its manifest, never as a folder of
files.
"""
