"""What turns the log into tables.

`embedded` does it in Python, without a server. `metrics` names what every engine reports. An engine knows the
log's contract and the stores, neither an exchange nor a feed.
"""
