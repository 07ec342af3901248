"""The spine: the durable log everything goes through first.

`contract` is what a log promises, `topics` what flows in it and how a message is laid out, `sqlite` the
log that needs no server. Nothing here knows an exchange or a table.
"""
