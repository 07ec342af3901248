"""The assets of replays: candles made once more from the archive, and whether they equal the live ones."""
