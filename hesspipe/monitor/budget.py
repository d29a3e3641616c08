"""The time of a training and of its records, and what a record may take of it.

Time that records do not use is saved for later ones. A record may be of several kinds, from the
most complete to the cheapest one. Each of the more complete ones saves a small part of the budget,
but no more than it takes, and the cheapest has what is left. A more complete one is also made where
it leaves enough for the cheapest. So records are frequent: the rarer they are, the more products
each of them takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hesspipe.linalg.arguments import require_number

# Of the budget: for all kinds of records but the cheapest. With more, the transformer of examples/
# had hardly any record.
_PART_OF_COMPLETE = 0.2
# Without a budget, records that take more seconds, and more of the time, are worth a warning.
_UNNOTICED = 60.0
_MUCH = 0.25

# Products that a kind of record is expected to take.
Expected = Mapping[str, int]


class Budget:
    """Compares the time of the records with a share of the time of the training.

    Nothing is measured in advance. A record begins when there is time for what its kind took the
    last time, and a search ends where its next product would take more than what is left.

    Parameters
    ----------
    share : float or None
        Most of the records' time over the training's; None is any.

    Attributes
    ----------
    training, records : float
        Seconds so far.
    was_cut : bool
        Whether the last search was told to end.

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
        self._seconds_of_kinds: dict[str, float] = {}
        self.seconds_per_product: float | None = None
        self._left: float | None = None
        self._entered = self._allowed = self._num_products = 0.0
        self.was_cut = False

    def enter(self) -> None:
        """Begin to count time for the records instead of the training."""
        self._entered = time.perf_counter()
        if self._left is not None:
            self.training += self._entered - self._left

    def leave(self, kind: str | None = None, *, is_counted: bool = True) -> None:
        """Go back to the training, and count the time for the records unless told not to."""
        self._left = time.perf_counter()
        if is_counted:
            seconds = self._left - self._entered
            self.records += seconds
            if kind is not None:
                self._seconds_of_kinds[kind] = self._seconds_of_kinds.get(kind, 0.0) + seconds

    @property
    def saved(self) -> float:
        """Seconds that a record may take now."""
        if self.share is None:
            return math.inf
        return self.share * self.training - self.records

    def seconds_of(self, num_products: int) -> float:
        """Estimate the time of a record of so many products, by the last one; 0 before."""
        return (self.seconds_per_product or 0.0) * num_products

    def affordable(self, kinds: Sequence[str], expected: Expected) -> str | None:
        """Choose the most complete kind of record that there is time for.

        Parameters
        ----------
        kinds : sequence of str
            From the most complete to the cheapest one.
        expected : mapping of str to int
            Products that a record of each kind takes.

        Returns
        -------
        str or None
            None if there is no time for any. The cheapest before the first record.
        """
        if self.share is None:
            return kinds[0]
        if self.seconds_per_product is None:
            return kinds[-1]
        part = _PART_OF_COMPLETE / max(1, len(kinds) - 1)
        *complete, cheapest = kinds
        least, reserved = self.seconds_of(expected[cheapest]), 0.0
        for kind in complete:
            cost = self.seconds_of(expected[kind])
            own = part * self.share * self.training - self._seconds_of_kinds.get(kind, 0.0)
            if cost <= min(own, self.saved) or cost + least <= self.saved - reserved:
                return kind
            reserved += max(0.0, min(own, cost))
        return cheapest if least <= self.saved - reserved else None

    def begin(self) -> None:
        """Begin the products of a record."""
        self._allowed, self._num_products, self.was_cut = self.saved, 0, False

    def may_go_on(self) -> bool:
        """Count a product, and tell whether there is time for another one."""
        self._num_products += 1
        needed = self._elapsed() * (1 + 1 / self._num_products)
        self.was_cut |= not needed <= self._allowed
        return needed <= self._allowed

    def finish(self, num_products: int) -> None:
        """Learn from a record what its products take, with all that belongs to them."""
        if num_products:
            self.learn(self._elapsed() / num_products)

    def learn(self, seconds_per_product: float | None) -> None:
        """Take over what a product takes, if it is known."""
        if seconds_per_product is not None:
            self.seconds_per_product = seconds_per_product

    @property
    def time_share(self) -> float | None:
        """Time of the records so far over that of the training; None without a budget."""
        if self.share is None or self.training == 0:
            return None
        return (self.records + self._elapsed()) / self.training

    @property
    def is_noticed(self) -> bool:
        """Whether the records take much of the time, and nobody has limited them."""
        most = max(_UNNOTICED, _MUCH * self.training)
        return self.share is None and self.records > most

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "training": self.training,
            "records": self.records,
            "kinds": dict(self._seconds_of_kinds),
            "seconds_per_product": self.seconds_per_product,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.training, self.records = state["training"], state["records"]
        self._seconds_of_kinds = dict(state["kinds"])
        self.seconds_per_product = state["seconds_per_product"]

    def _elapsed(self) -> float:
        return time.perf_counter() - self._entered
