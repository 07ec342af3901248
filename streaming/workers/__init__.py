"""The processes that run: one file each, started by module name (`python -m streaming.workers.feed`).

A worker reads the settings, opens what it needs, and loops until it is told to stop. What it computes
lies in `streaming.feed` and `streaming.engines`. `supervisor` starts all of them and starts again what
dies; `status` and `drain` look at them and run them once.
"""
