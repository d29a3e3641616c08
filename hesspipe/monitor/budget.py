"""The time of a training and of its records, and what a record may take of it."""

from __future__ import annotations

import math
import time

from hesspipe.linalg.arguments import require_number


class Budget:
    """Compares the time of the records with a share of the time of the training.

    Time that records do not use is saved for later ones. Nothing is measured in advance: a search
    ends where its next product would take more than what is left.

    Parameters
    ----------
    share : float or None
        Most of the records' time over the training's; None is any.

    Attributes
    ----------
    training, records : float
        Seconds so far.

    Raises
    ------
    ValueError
        If the share is not positive and finite.
    """

    def __init__(self, share: float | None) -> None:
        if share is not None:
            share = require_number("budget", share)
            if not 0 < share < math.inf:
                raise ValueError(f"budget must be positive and finite, got {share}")
        self.share = share
        self.training = self.records = 0.0
        self._seconds_per_product: float | None = None
        self._left: float | None = None
        self._entered = self._allowed = self._num_products = 0.0

    def enter(self) -> None:
        """Begin to count time for the records instead of the training."""
        self._entered = time.perf_counter()
        if self._left is not None:
            self.training += self._entered - self._left

    def leave(self, *, is_counted: bool = True) -> None:
        """Go back to the training, and count the time for the records unless told not to."""
        self._left = time.perf_counter()
        if is_counted:
            self.records += self._left - self._entered

    @property
    def saved(self) -> float:
        """Seconds that a record may take now."""
        if self.share is None:
            return math.inf
        return self.share * self.training - self.records

    def seconds_of(self, num_products: int) -> float:
        """Estimate the time of a record of so many products, by the last one; 0 before."""
        return (self._seconds_per_product or 0.0) * num_products

    def begin(self) -> None:
        """Begin the products of a record."""
        self._allowed, self._num_products = self.saved, 0

    def may_go_on(self) -> bool:
        """Count a product, and tell whether there is time for another one."""
        self._num_products += 1
        needed = self._elapsed() * (1 + 1 / self._num_products)
        return needed <= self._allowed

    def finish(self, num_products: int) -> None:
        """Learn from a record what its products take, with all that belongs to them."""
        if num_products:
            self._seconds_per_product = self._elapsed() / num_products

    @property
    def time_share(self) -> float | None:
        """Time of the records so far over that of the training; None without a budget."""
        if self.share is None or self.training == 0:
            return None
        return (self.records + self._elapsed()) / self.training

    def _elapsed(self) -> float:
        return time.perf_counter() - self._entered
