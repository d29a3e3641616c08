"""Results that random numbers of Python or NumPy change, however seldom.

A layer that is skipped with a probability of 2 % is the same in most pairs of evaluations. Whether
numbers are drawn says nothing either: many models draw some in every call and use none. So where an
evaluation draws numbers, the next ones are made the smallest and the largest there are. What
happens below or above some threshold then happens in one of two evaluations.

Both generators are Mersenne Twisters, which return the words of their state one after the other,
tempered, before they compute new ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Words whose tempered values are 0 and 2^32 - 1.
_SMALLEST, _LARGEST = 0, 0x12DD9BB3
_NUM_WORDS = 624
# Of a state, half for numbers of two words each. The others are random, so that what draws until it
# gets another number ends.
_NUM_EXTREME = 312


def draws_numbers(evaluate: Callable[[], Any]) -> tuple[Any, bool]:
    """Evaluate, and say whether numbers of Python or NumPy were drawn."""
    before = _states()
    result = evaluate()
    return result, _states() != before


def at_extremes(evaluate: Callable[[], Any]) -> Iterator[Any]:
    """Evaluate with the smallest and with the largest random numbers."""
    for word in (_SMALLEST, _LARGEST):
        with _drawing(word):
            yield evaluate()


@contextmanager
def _drawing(word: int) -> Iterator[None]:
    """Let the generators return one value first."""
    draw = random.Random(0)
    words = [word] * _NUM_EXTREME
    words += [draw.getrandbits(32) for _ in range(_NUM_WORDS - _NUM_EXTREME)]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.setstate((python_state[0], (*words, 0), None))
        np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), 0, 0, 0.0))  # noqa: NPY002
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 (the caller's state)


def _states() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()  # noqa: NPY002 (the one that models use)
    return random.getstate(), name, np.asarray(words).tobytes(), rest
