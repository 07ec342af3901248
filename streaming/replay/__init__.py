"""Replaying archived days: the trades of a pinned snapshot once more through log and engine into candles.

Here is what a replay is, how it is read, paced, run and released. The stage that makes its candles is the
engine's own (`streaming.engines`); the process that a person starts is `streaming.workers.replay`.
"""
