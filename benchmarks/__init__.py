"""What `make bench` runs: each figure with a limit measured in the same run, and their ratio.

Absolute figures move from machine to machine and from minute to minute, so every file here measures what
it could be at best (the socket alone, the disk alone, the memory alone) right beside what the program
does. Nothing here is a test: a slow machine fails nothing.
"""
