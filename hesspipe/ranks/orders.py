"""Computations that rank 0 leads: the others compute what it asks them for.

An iteration has vectors, norms and decisions of its own. If every process made it, they would
need the memory for it and could decide differently, because sums are rounded differently on
different machines, and one would wait for ever. So only rank 0 makes it, writes files and prints;
the others compute their parts of the products, and get the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.ranks.values import share

if TYPE_CHECKING:
    from hesspipe.ranks.ranks import Ranks

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Term:
    """The part of one process in a sum.

    Attributes
    ----------
    compute : callable (Tensor) -> Tensor
    is_scalar : bool
        Whether the value is a number, and not of the shape of the argument.
    """

    compute: Callable[[Tensor], Tensor]
    is_scalar: bool = False


class Orders:
    """Sums over the processes of functions of a tensor, that rank 0 calls.

    Parameters
    ----------
    ranks : Ranks
    terms : sequence of Term
        In the same order in all processes.
    like : Tensor
        Of the dtype and on the device of all arguments and values.
    """

    def __init__(self, ranks: Ranks, terms: Sequence[Term], like: Tensor) -> None:
        self.ranks, self.terms, self.like = ranks, list(terms), like

    def call(self, term: Term, argument: Tensor) -> Tensor:
        """Compute a sum over all processes, in rank 0."""
        self.ranks.order([self.terms.index(term) + 1, argument.ndim, *argument.shape])
        argument = argument.contiguous()
        self.ranks.send(argument, "an argument")
        return self.ranks.add_up(term, argument, "a product", only_first=True)

    def end(self) -> None:
        """Let the other processes go on."""
        self.ranks.order([])

    def serve(self) -> None:
        """Compute, in the other processes, until the end."""
        while True:
            place, ndim, *shape = self.ranks.order([])
            if place == 0:
                return
            argument = self.like.new_empty(shape[:ndim])
            self.ranks.send(argument, "an argument")
            self.ranks.add_up(self.terms[place - 1], argument, "a product", only_first=True)


def lead(orders: Orders, what: str, compute: Callable[[], _Found]) -> _Found:
    """Compute in rank 0, with the help of the others, and return the result in all.

    Parameters
    ----------
    orders : Orders
    what : str
        For messages.
    compute : callable () -> result
        Called in rank 0 only. Products and losses of objectives in it are those of all processes.

    Returns
    -------
    result
        Equal to the last bit in all processes.

    Raises
    ------
    NotConvergedError
        As `compute` raises it, in all processes.
    RankError
        If it raises another error, or one of the processes does.
    """
    ranks = orders.ranks
    with ranks.raise_together(what):
        found: _Found | NotConvergedError | None = None
        if ranks.is_first:
            ranks.orders = orders
            try:
                found = compute()
            except NotConvergedError as error:
                found = error
            finally:
                ranks.orders = None
            orders.end()
        else:
            orders.serve()
        is_converged = ranks.decide(not isinstance(found, NotConvergedError))
        if is_converged:
            result: _Found = share(ranks, found, orders.like)
            return result
        message = ranks.decide(str(found))
        pairs = found.converged if isinstance(found, NotConvergedError) else None
        pairs = share(ranks, pairs, orders.like)
        if isinstance(found, NotConvergedError):
            raise found
        raise NotConvergedError(message, pairs)
