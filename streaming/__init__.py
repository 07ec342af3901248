"""The long-running side: from an exchange's socket to committed tables.

`exchanges` speak to the outside, `feed` accepts or refuses what they say, `spine` is the durable log,
`engines` turn the log into tables, `workers` are the processes that run it all.
"""
