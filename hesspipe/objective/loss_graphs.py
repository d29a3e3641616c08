"""What the graphs of losses contain, seen while they are multiplied with vectors.

Names of `torch.autograd.Function`s and of operations that are known to be wrong say in messages
what may be the cause of a wrong derivative. Leaves other than theta are parameters of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.many_classes import CrossEntropyOfManyClasses
from hesspipe.objective.pieces import Piece

# Which stand for operations of torch.
_OWN = (CrossEntropyOfManyClasses,)
# Operations of torch 2.13 with wrong second derivatives, by the names of their graph nodes.
_KNOWN_WRONG = {"WeightNormInterfaceBackward0": "torch.nn.utils.parametrizations.weight_norm"}


class GraphSurvey:
    """Products with the Hessian, and what the graphs of losses contain.

    Parameters
    ----------
    model : FlatModel, optional
        Its caller's parameters are refused where a loss uses them beside theta.

    Attributes
    ----------
    names, operations : set of str
        The `torch.autograd.Function`s, and all nodes, that were seen.
    depends : bool
        Whether a loss with a gradient was seen.
    """

    def __init__(self, model: FlatModel | None) -> None:
        self.model = model
        self.names: set[str] = set()
        self.operations: set[str] = set()
        self.depends = False

    def look(self, value: Tensor) -> None:
        """Note what a loss contains, and refuse parameters that are used in another way."""
        if value.grad_fn is None:
            return
        self.depends = True
        names, leaves, operations = _contents(value.grad_fn)
        self.names.update(names)
        self.operations |= operations
        if self.model is not None:
            _refuse_other_uses(leaves, self.model)

    def require_dependence(self, pieces: Iterable[Piece], theta: Tensor) -> None:
        """Raise an error unless the loss of a piece depends on theta."""
        for piece in pieces:
            self.look(piece.value(theta.detach().requires_grad_()))
            if self.depends:
                return
        raise ValueError(
            "the loss must depend on the parameters, got one without a gradient; the model may "
            "detach its outputs, be evaluated under torch.no_grad() or be another one than the "
            "loss is given, or the loss may count, as accuracy does"
        )

    def product(
        self, pieces: list[Piece], theta: Tensor, vector: Tensor, other: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Multiply the Hessian with a vector, piece by piece.

        Parameters
        ----------
        pieces : list of Piece
        theta, vector, other : Tensor, shape (P,)

        Returns
        -------
        product, gradient : Tensor, shape (P,)
        asymmetry : float
            <other, H vector> - <vector, H other>. The second product is not kept.
        """
        product, slope = _Total(theta), _Total(theta)
        asymmetry = 0.0
        for piece in pieces:
            point = theta.detach().requires_grad_()
            gradient = _slope(piece.value, point, self.look)
            slope.add(gradient.detach())
            if gradient.requires_grad:
                asymmetry -= float(pull_back(gradient, point, other) @ vector)
                part = pull_back(gradient, point, vector)
                asymmetry += float(part @ other)
                product.add(part)
        return product.value(), slope.value(), asymmetry

    def cause(self) -> str:
        """Name what may be wrong, for messages."""
        if self.names:
            return f" with the torch.autograd.Function {', '.join(sorted(self.names))}"
        wrong = [name for operation, name in _KNOWN_WRONG.items() if operation in self.operations]
        if wrong:
            return f" with {', '.join(wrong)}, whose second derivative is wrong in torch"
        return ""


def products_of(
    scalars: Sequence[Callable[[Tensor], Tensor]],
    theta: Tensor,
    vectors: list[Tensor],
) -> tuple[list[Tensor], Tensor]:
    """Multiply second derivatives of a sum of functions with vectors; returns the gradient too.

    Parameters
    ----------
    scalars : sequence of callable (theta) -> scalar Tensor
    theta : Tensor, shape (P,)
    vectors : list of Tensor, shape (P,)
    """
    totals, slope = [_Total(theta) for _ in vectors], _Total(theta)
    for scalar in scalars:
        point = theta.detach().requires_grad_()
        gradient = _slope(scalar, point)
        slope.add(gradient.detach())
        if gradient.requires_grad:
            for total, vector in zip(totals, vectors, strict=True):
                total.add(pull_back(gradient, point, vector))
    return [total.value() for total in totals], slope.value()


class _Total:
    """A sum of vectors (P,), of which the first is not copied."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._sum: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """Add a vector, which is nobody else's from now on."""
        self._sum = part if self._sum is None else self._sum.add_(part)

    def value(self) -> Tensor:
        """Return the sum; zeros if nothing was added."""
        return torch.zeros_like(self._like) if self._sum is None else self._sum


def _slope(
    scalar: Callable[[Tensor], Tensor],
    point: Tensor,
    look: Callable[[Tensor], None] = lambda value: None,
) -> Tensor:
    """Differentiate a function once, with a graph; without one where it does not depend."""
    value = scalar(point)
    look(value)
    if not value.requires_grad:
        return torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
    return gradient


def pull_back(gradient: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    """Multiply the Hessian with a vector, where the gradient has a graph; the graph is kept."""
    return torch.autograd.grad(gradient, point, vector, retain_graph=True, materialize_grads=True)[
        0
    ]


def _refuse_other_uses(leaves: list[Tensor], model: FlatModel) -> None:
    """Raise an error if a loss depends on the caller's parameters other than through theta."""
    for leaf in leaves:
        if id(leaf) in model.originals:
            raise ValueError(
                f"model and loss_fn must use parameters through the model only, got "
                f"{model.originals[id(leaf)]} used in another way, which would be a constant here, "
                "e.g. in a closure over the model or a list of parameters; for a penalty on the "
                "parameters use weight_decay, or Objective.from_function"
            )


def _contents(root: torch.autograd.graph.Node) -> tuple[list[str], list[Tensor], set[str]]:
    """Return the names of `torch.autograd.Function`s in a graph, its leaves, and all node names."""
    names: set[str] = set()
    operations: set[str] = set()
    leaves: list[Tensor] = []
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        operations.add(node.name())
        if isinstance(node, BackwardCFunction) and node._forward_cls not in _OWN:
            names.add(type(node).__name__.removesuffix("Backward"))
        if hasattr(node, "variable"):  # AccumulateGrad
            leaves.append(node.variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(names), leaves, operations
