"""Market data: trades and candles by product and day; what seals, rebuilds, checks and carries them on.

`trades` and `candles` are the assets, `checks` what is asked of them, `sensors` what finds work, `carrying`
what takes a change downstream, `jobs` what a person starts, `description` how a table looks in the UI.
"""
