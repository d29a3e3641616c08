"""How each library is called, and when its answer counts as correct."""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curvlinops
import hessian_eigenthings
import pyhessian
import torch
from torch import Tensor, nn

import hesspipe

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from dense_reference import reference_matrices

# Rounding of products in float64 is below 1e-13; any mistake is far above this.
ALLOWED_ERROR = 1e-10

Loss = Callable[[Any, Any], Tensor]
Multiply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Question:
    """A problem for all libraries, and the correct answers.

    Attributes
    ----------
    model : nn.Module
    loss_fn : callable (outputs, targets) -> scalar
    data : iterable of (inputs, targets)
    answers : tuple of Tensor, shape (P, P)
        The matrix over all parameters; each of several counts as correct. Empty where only an
        error is correct.
    matrix : {"hessian", "ggn"}
    denominator : callable, optional
        For a mean loss that is not torch's; hesspipe asks for it.
    """

    model: nn.Module
    loss_fn: Loss
    data: Any
    answers: tuple[Tensor, ...]
    matrix: str = "hessian"
    denominator: Callable[[Any, Any], float] | None = None


@dataclass(frozen=True)
class Verdict:
    """Correct, refused, crash, wrong or not offered, and the observed error or message."""

    kind: str
    detail: str = ""


class NotOfferedError(Exception):
    """The library has no such function."""


class FunctionLoss(nn.Module):
    """A loss by a function, with the attribute that curvlinops needs."""

    def __init__(self, function: Loss, reduction: str = "mean") -> None:
        super().__init__()
        self.function, self.reduction = function, reduction

    def forward(self, outputs: Any, targets: Any) -> Tensor:
        """Apply."""
        return self.function(outputs, targets)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers from a separate generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(num_samples: int) -> Tensor:
    """Labels of 3 classes."""
    return torch.randint(3, (num_samples,), generator=torch.Generator().manual_seed(2))


def is_varied(model: nn.Module) -> Tensor:
    """The entries of all parameters that require a gradient, (P,)."""
    parts = [torch.full((p.numel(),), p.requires_grad) for p in model.parameters()]
    return torch.cat(parts)


def make_question(
    model: nn.Module,
    loss_fn: Loss | None = None,
    splits: int | list[int] = 23,
    targets: Tensor | None = None,
    *,
    inputs: Tensor | None = None,
    mode: bool = False,
    answer: nn.Module | None = None,
    answer_loss: Loss | None = None,
    has_answer: bool = True,
    matrix: str = "hessian",
    denominator: Callable[[Any, Any], float] | None = None,
) -> Question:
    """A question on samples in batches, and its answer from loops over a single batch.

    `answer` is a model with the same parameters that computes the intended function, and
    `answer_loss` the intended loss.
    """
    loss_fn, targets = loss_fn or nn.CrossEntropyLoss(), labels(23) if targets is None else targets
    inputs = normal(len(targets), 6) if inputs is None else inputs
    intended = answer_loss or loss_fn
    expected = []
    if has_answer:
        found = reference_matrices(
            (answer or copy.deepcopy(model)).eval(), lambda model: model(inputs.clone()),
            lambda outputs: intended(outputs, targets),
        )[matrix]  # fmt: skip
        varied = is_varied(model)
        found[~varied] = found[:, ~varied] = 0
        expected.append(found)
    data = list(zip(inputs.split(splits), targets.split(splits), strict=True))
    return Question(model.train(mode), loss_fn, data, tuple(expected), matrix, denominator)


# The operators, as each library's documentation makes them.


def hesspipe_objective(question: Question) -> hesspipe.Objective:
    """The objective; matrices and solvers take it."""
    loss_fn = question.loss_fn
    return hesspipe.Objective(
        question.model,
        loss_fn.function if isinstance(loss_fn, FunctionLoss) else loss_fn,
        question.data,
        denominator=question.denominator,
        dtype=next(question.model.parameters()).dtype,
    )


def curvlinops_operator(question: Question) -> Any:
    """Of the parameters that require a gradient; losses are modules."""
    parameters = [p for p in question.model.parameters() if p.requires_grad]
    kinds = {"hessian": curvlinops.HessianLinearOperator, "ggn": curvlinops.GGNLinearOperator}
    return kinds[question.matrix](question.model, question.loss_fn, parameters, question.data)


def eigenthings_operator(question: Question) -> Any:
    """H, or G by the model and the loss apart."""
    if question.matrix == "ggn":
        return hessian_eigenthings.GGNOperator(
            question.model,
            question.data,
            hessian_eigenthings.supervised_forward,
            hessian_eigenthings.supervised_loss_of_output(question.loss_fn),
        )
    loss_fn = hessian_eigenthings.supervised_loss(question.loss_fn)
    return hessian_eigenthings.HessianOperator(question.model, question.data, loss_fn)


def pyhessian_operator(question: Question) -> Any:
    """With the graph of a single batch kept, or batch by batch."""
    if question.matrix == "ggn":
        raise NotOfferedError
    is_single = isinstance(question.data, list) and len(question.data) == 1
    data = {"data": question.data[0]} if is_single else {"dataloader": question.data}
    return pyhessian.hessian(question.model, question.loss_fn, cuda=False, **data)


# How each library multiplies: vectors (K, P') over the parameters that require a gradient.


def by_hesspipe(question: Question) -> Multiply:
    """Vectors of hesspipe cover the parameters that vary."""
    kinds = {"hessian": hesspipe.HessianOperator, "ggn": hesspipe.GGNOperator}
    operator = kinds[question.matrix](hesspipe_objective(question))
    return lambda vectors: (operator @ vectors.T).T


def by_curvlinops(question: Question) -> Multiply:
    """All vectors at once."""
    operator = curvlinops_operator(question)
    return lambda vectors: (operator @ vectors.T).T


def by_eigenthings(question: Question) -> Multiply:
    """A vector at a time."""
    operator = eigenthings_operator(question)
    return lambda vectors: torch.stack([operator @ vector for vector in vectors])


def by_pyhessian(question: Question) -> Multiply:
    """A vector at a time, as a list of tensors."""
    operator = pyhessian_operator(question)
    sizes = [parameter.numel() for parameter in operator.params]

    def product(vector: Tensor) -> Tensor:
        parts = zip(vector.split(sizes), operator.params, strict=True)
        shaped = [part.view_as(parameter) for part, parameter in parts]
        if operator.full_dataset:
            found = operator.dataloader_hv_product(shaped)[1]
        else:
            found = pyhessian.hessian_vector_product(operator.gradsH, operator.params, shaped)
        return torch.cat([part.flatten() for part in found])

    return lambda vectors: torch.stack([product(vector) for vector in vectors])


LIBRARIES = {
    "hesspipe": by_hesspipe,
    "curvlinops": by_curvlinops,
    "hessian-eigenthings": by_eigenthings,
    "PyHessian": by_pyhessian,
}


# Verdicts.


def judge(name: str, question: Question) -> Verdict:
    """Compare products with three vectors."""
    return judge_products(LIBRARIES[name](question), question)


def judge_products(multiply: Multiply, question: Question) -> Verdict:
    """Compare products with three vectors, of an operator that is made already."""
    vectors = normal(3, int(is_varied(question.model).sum()), seed=5)
    found = multiply(vectors)
    if not question.answers:
        difference = compared(multiply(vectors), found, ALLOWED_ERROR).detail
        is_kept = "depends on one draw of random numbers"
        return Verdict("wrong", f"differs between calls {difference}" if difference else is_kept)
    varied = is_varied(question.model)
    verdicts = [
        compared(found, vectors @ answer[varied][:, varied], ALLOWED_ERROR)
        for answer in question.answers
    ]
    return next((one for one in verdicts if one.kind == "correct"), verdicts[0])


def compared(found: Tensor, expected: Tensor, allowed: float) -> Verdict:
    """By the largest difference, relative to the largest entry; nan is a visible refusal."""
    if not torch.isfinite(found).all():
        return Verdict("refused", "nan")
    error = float((found - expected).abs().max() / expected.abs().max())
    how_much = f"by {error:.1%}" if error >= 1e-3 else f"by {error:.0e}"
    return Verdict("correct") if error <= allowed else Verdict("wrong", how_much)


def judge_error(name: str, error: Exception) -> Verdict:
    """An error is a refusal; of hesspipe only if it raised it on purpose."""
    message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if name != "hesspipe":
        return Verdict("refused", message)
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    is_own = Path(hesspipe.__file__).parent in Path(where).parents
    is_meant = is_own and isinstance(error, (hesspipe.HesspipeError, ValueError, TypeError))
    return Verdict("refused" if is_meant and "report it" not in str(error) else "crash", message)
