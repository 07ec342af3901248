"""The exchanges, one file or folder each, behind one contract.

A file here turns an exchange's frames into events and knows its REST interface; it holds no socket and
no state of the stream. `recording` reads recorded frames, `simulated/` is a server of its own.
"""
