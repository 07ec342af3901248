"""Running the platform: reconciliation, maintenance, and the sensors that watch.

What a table of the market holds and how it is made belongs in `market`.
"""
