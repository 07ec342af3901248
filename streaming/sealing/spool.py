"""Trades fetched for a product-day that isn't sealed yet, kept so that a seal that was killed can go on.

They lie in files of their own, not in the archive: nobody must take half a day for a day, and which trades
are late must not depend on when a process died. Each file holds some pages of the exchange's answers. It is
complete from the moment it has its name.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import structlog

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.market.trade import Exchange
from streaming.sealing.rows import FETCHED

_PARTIAL: Final = ".partial"

_log = structlog.get_logger()


@dataclass(frozen=True)
class Spool:
    """The folder of one product-day; it is there while something lies in it."""

    folder: Path

    @classmethod
    def of(cls, home: Home, exchange: Exchange, product: str, day: date) -> Self:
        """Return the spool of what an exchange made of a product on a UTC day."""
        name = exchange.name.lower()
        return cls(home.folder / "fetched" / name / checked_product(product) / day.isoformat())

    @property
    def is_used(self) -> bool:
        """Whether anything was kept."""
        return self.folder.exists()

    def trades(self) -> npt.NDArray[np.void]:
        """Return what was kept: `FETCHED` records, ascending by trade_id, each id once.

        A file that can't be read is dropped: its trades are fetched again.
        """
        kept = [np.zeros(0, dtype=FETCHED)]
        for path in sorted(self.folder.glob("*.npy")):
            try:
                trades = np.load(path, allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                _log.warning(
                    "fetched trades can't be read and are fetched again", file=str(path), error=error
                )
                path.unlink(missing_ok=True)
                continue
            if trades.dtype == FETCHED:  # an older version's have other columns
                kept.append(trades)
        together = np.concatenate(kept)
        _, first = np.unique(together["trade_id"], return_index=True)
        return together[first]

    def keep(self, trades: npt.NDArray[np.void]) -> None:
        """Keep `FETCHED` records; they are on the disk when this returns."""
        if not len(trades):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{trades['trade_id'].min():020}-{trades['trade_id'].max():020}.npy"
        partial = self.folder / (name + _PARTIAL)
        with partial.open("wb") as file:
            np.save(file, trades, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def clear(self) -> None:
        """Forget what was kept: the day is sealed."""
        if self.is_used:
            shutil.rmtree(self.folder)
