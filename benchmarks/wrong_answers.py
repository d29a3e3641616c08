"""Give four libraries problems that are known to go wrong, and compare with a dense reference.

Claim: hesspipe is correct or raises an error where curvlinops, hessian-eigenthings or PyHessian
silently return wrong numbers.

Each library is called as its documentation shows. The reference is `tests/dense_reference.py`:
loops of torch.autograd in float64 over all the data as one batch, which use no library. A second
table compares products of H and G with curvlinops' where both are right.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import curvlinops
import hessian_eigenthings
import pyhessian
import torch
from hessian_eigenthings.algorithms import lanczos
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

import hesspipe

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from dense_reference import reference_matrices

# Rounding of products in float64 is below 1e-13; any mistake is far above this.
_ALLOWED_ERROR = 1e-10
# The default tolerances of the eigensolvers are 1e-3 to 1e-8.
_ALLOWED_EIGENVALUE_ERROR = 1e-2
_NUM_EIGENVALUES = 30
# Of central differences; their error is about its square, and rounding over it.
_DIFFERENCE_STEP = 1e-6
_PACKAGES = ("hesspipe", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")


@dataclass(frozen=True)
class Question:
    """A problem for all libraries, and the correct answer.

    Attributes
    ----------
    model, loss_fn : nn.Module
    data : iterable of (inputs, targets)
    expected : Tensor, shape (P, P), or None
        The Hessian over all parameters; None where only an error is correct.
    """

    model: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    data: Any
    expected: Tensor | None


@dataclass(frozen=True)
class Verdict:
    """Correct, refused, or wrong, and the observed error."""

    kind: str
    detail: str = ""


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers from a separate generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def is_varied(model: nn.Module) -> Tensor:
    """The entries of all parameters that require a gradient, (P,)."""
    parts = [torch.full((p.numel(),), p.requires_grad) for p in model.parameters()]
    return torch.cat(parts)


# How each library multiplies: vectors (K, P') over the parameters that require a gradient.


def by_hesspipe(question: Question) -> Callable[[Tensor], Tensor]:
    """Vectors of hesspipe cover all parameters; the constant ones have zeros."""
    objective = hesspipe.Objective(question.model, question.loss_fn, question.data)
    operator, varied = hesspipe.HessianOperator(objective), objective.is_varied

    def multiply(vectors: Tensor) -> Tensor:
        whole = torch.zeros(len(varied), len(vectors), dtype=vectors.dtype)
        whole[varied] = vectors.T
        return (operator @ whole)[varied].T

    return multiply


def by_curvlinops(question: Question) -> Callable[[Tensor], Tensor]:
    """Of the parameters that require a gradient."""
    parameters = [p for p in question.model.parameters() if p.requires_grad]
    operator = curvlinops.HessianLinearOperator(
        question.model, question.loss_fn, parameters, question.data
    )
    return lambda vectors: (operator @ vectors.T).T


def by_eigenthings(question: Question) -> Callable[[Tensor], Tensor]:
    """A vector at a time."""
    loss_fn = hessian_eigenthings.supervised_loss(question.loss_fn)
    operator = hessian_eigenthings.HessianOperator(question.model, question.data, loss_fn)
    return lambda vectors: torch.stack([operator @ vector for vector in vectors])


def by_pyhessian(question: Question) -> Callable[[Tensor], Tensor]:
    """With the graph of a single batch kept, or batch by batch."""
    is_single = isinstance(question.data, list) and len(question.data) == 1
    data = {"data": question.data[0]} if is_single else {"dataloader": question.data}
    operator = pyhessian.hessian(question.model, question.loss_fn, cuda=False, **data)
    sizes = [parameter.numel() for parameter in operator.params]

    def product(vector: Tensor) -> Tensor:
        parts = zip(vector.split(sizes), operator.params, strict=True)
        shaped = [part.view_as(parameter) for part, parameter in parts]
        if is_single:
            found = pyhessian.hessian_vector_product(operator.gradsH, operator.params, shaped)
        else:
            found = operator.dataloader_hv_product(shaped)[1]
        return torch.cat([part.flatten() for part in found])

    return lambda vectors: torch.stack([product(vector) for vector in vectors])


LIBRARIES = {
    "hesspipe": by_hesspipe,
    "curvlinops": by_curvlinops,
    "hessian-eigenthings": by_eigenthings,
    "PyHessian": by_pyhessian,
}


# The questions.


def mlp(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """A network of 55 parameters at a drawn point."""
    return drawn(nn.Sequential(nn.Linear(6, 4), activation(), nn.Linear(4, 3), nn.Tanh(),
                               nn.Linear(3, 3)))  # fmt: skip


def drawn(model: nn.Module) -> Any:
    """The model in float64, with standard normal parameters, a little smaller."""
    model = model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return model


def labels(num_samples: int) -> Tensor:
    """Labels of 3 classes."""
    return torch.randint(3, (num_samples,), generator=torch.Generator().manual_seed(2))


def make_question(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    splits: int = 23,
    targets: Tensor | None = None,
    *,
    mode: bool = False,
    answer: nn.Module | None = None,
    has_answer: bool = True,
) -> Question:
    """A question on 23 samples in batches, and its answer from loops over a single batch.

    `answer` is a model with the same parameters that computes the intended function.
    """
    loss_fn, targets = loss_fn or nn.CrossEntropyLoss(), labels(23) if targets is None else targets
    inputs = normal(23, 6)
    expected = None
    if has_answer:
        expected = reference_matrices(
            (answer or copy.deepcopy(model)).eval(), lambda model: model(inputs.clone()),
            lambda outputs: loss_fn(outputs, targets),
        )["hessian"]  # fmt: skip
        varied = is_varied(model)
        expected[~varied] = expected[:, ~varied] = 0
    data = list(zip(inputs.split(splits), targets.split(splits), strict=True))
    return Question(model.train(mode), loss_fn, data, expected)


def with_ignored_labels() -> Tensor:
    """Most of the first batch is ignored."""
    targets = labels(23)
    targets[:8:2] = targets[1:6:4] = -100
    return targets


class Between(nn.Module):
    """A network with a user function between its layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 4), nn.Linear(4, 3), function

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply."""
        outputs: Tensor = self.last(self.function(self.first(inputs)))
        return outputs


class Attention(nn.Module):
    """Causal self-attention over 3 places by the fused function of torch 2."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.last = nn.Linear(2, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix the places."""
        query, key, value = self.project(inputs.view(-1, 1, 3, 2)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs: Tensor = self.last(mixed.flatten(1))
        return outputs


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Twice through the weight."""
        outputs: Tensor = self.last(self.second(self.first(inputs).tanh()).tanh())
        return outputs


class SquareWithConstantSlope(torch.autograd.Function):
    """Its backward method detaches: the second derivative lacks a term."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The square."""
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        """The derivative, as a number."""
        return 2 * ctx.saved_tensors[0].detach() * slope


def square_with_constant_slope(values: Tensor) -> Tensor:
    """As a function."""
    # torch leaves `apply` without types.
    result: Tensor = SquareWithConstantSlope.apply(values)  # type: ignore[no-untyped-call]
    return result


def in_float32(hidden: Tensor) -> Tensor:
    """Like models that keep their norms in float32."""
    return hidden.float().tanh().double()


def normalized_mlp() -> nn.Module:
    """A network with batch normalization and non-trivial statistics."""
    model = drawn(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)))
    model(normal(40, 6, seed=7) + 1)
    return model


def frozen_mlp() -> nn.Module:
    """The first bias is constant."""
    model = mlp()
    model[0].bias.requires_grad_(False)
    return model


def unused_mlp() -> nn.Module:
    """A layer that the outputs do not depend on."""
    model = Between(torch.tanh)
    model.unused = nn.Linear(2, 2)
    return drawn(model)


class WrittenOutWeightNorm(nn.Linear):
    """Weight normalization by elementary operations, with the parameters in torch's order."""

    def __init__(self) -> None:
        super().__init__(6, 4)
        del self.weight
        self.scale = nn.Parameter(torch.ones(4, 1))
        self.direction = nn.Parameter(torch.ones(4, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        """The same numbers as torch.nn.utils.parametrizations.weight_norm."""
        norm = self.direction.square().sum(1, keepdim=True).sqrt()
        return functional.linear(inputs, self.scale * self.direction / norm, self.bias)


def weight_norm_question() -> Question:
    """Second derivatives of the weight norm of torch 2.13 lack a term."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    models = [
        drawn(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3)))
        for layer in (normed, WrittenOutWeightNorm())
    ]
    return make_question(models[0], answer=models[1])


CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
QUESTIONS: dict[str, Callable[[], Question]] = {
    "mean, one batch": lambda: make_question(mlp()),
    "mean, ragged batches (8, 8, 7)": lambda: make_question(mlp(), splits=8),
    "sum, ragged batches": lambda: make_question(mlp(), nn.CrossEntropyLoss(reduction="sum"), 8),
    "class weights, batches": lambda: make_question(mlp(), nn.CrossEntropyLoss(CLASS_WEIGHTS), 8),
    "ignored labels, batches": lambda: make_question(
        mlp(), splits=8, targets=with_ignored_labels()
    ),
    "dropout, model in training mode": lambda: make_question(
        drawn(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 3))),
        mode=True,
    ),
    "dropout by a function": lambda: make_question(
        drawn(Between(partial(functional.dropout, p=0.3))), has_answer=False
    ),
    "batch norm, training mode, batches": lambda: make_question(
        normalized_mlp(), splits=8, mode=True
    ),
    "batch norm, evaluation mode, batches": lambda: make_question(normalized_mlp(), splits=8),
    "layer norm": lambda: make_question(
        drawn(nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)))
    ),
    "weight norm (wrong in torch)": weight_norm_question,
    "fused attention": lambda: make_question(drawn(Attention())),
    "activation in place": lambda: make_question(mlp(partial(nn.ReLU, inplace=True))),
    "frozen parameter": lambda: make_question(frozen_mlp()),
    "unused parameter": lambda: make_question(unused_mlp()),
    "weight shared by two layers": lambda: make_question(drawn(Tied())),
    "custom operation, detached in backward": lambda: make_question(
        drawn(Between(square_with_constant_slope)), answer=drawn(Between(torch.square))
    ),
    "float32 inside a float64 model": lambda: make_question(
        drawn(Between(in_float32)), answer=drawn(Between(torch.tanh))
    ),
}


def judge(
    multiply: Callable[[Question], Callable[[Tensor], Tensor]], question: Question
) -> Verdict:
    """Compare products with three vectors."""
    vectors = normal(3, int(is_varied(question.model).sum()), seed=5)
    product = multiply(question)
    found = product(vectors)
    if question.expected is None:
        difference = compared(product(vectors), found, _ALLOWED_ERROR).detail
        is_kept = "depends on one draw of random numbers"
        return Verdict("wrong", f"differs between calls {difference}" if difference else is_kept)
    varied = is_varied(question.model)
    expected = vectors @ question.expected[varied][:, varied]
    return compared(found, expected, _ALLOWED_ERROR)


def compared(found: Tensor, expected: Tensor, allowed: float) -> Verdict:
    """By the largest difference, relative to the largest entry."""
    error = float((found - expected).abs().max() / expected.abs().max())
    how_much = f"by {error:.1%}" if error >= 1e-3 else f"by {error:.0e}"
    return Verdict("correct") if error <= allowed else Verdict("wrong", how_much)


def judge_second_use(name: str) -> Verdict:
    """A second operator for the same model."""
    question = make_question(mlp())
    LIBRARIES[name](question)
    return judge(LIBRARIES[name], question)


def judge_augmentation(name: str) -> Verdict:
    """Two products with one vector, where the loader draws new data each time."""
    dataset = TensorDataset(normal(23, 6), labels(23))

    class Augmenting:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            loader = DataLoader(dataset, batch_size=8, shuffle=True)
            return ((inputs + 0.1 * torch.randn_like(inputs), y) for inputs, y in loader)

        def __len__(self) -> int:
            return 3

    multiply = LIBRARIES[name](Question(mlp(), nn.CrossEntropyLoss(), Augmenting(), None))
    vectors = normal(3, 55, seed=5)
    return compared(multiply(vectors), multiply(vectors), _ALLOWED_ERROR)


def judge_state(name: str) -> Verdict:
    """The model's mode, gradients and numbers after a product."""
    model = mlp()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    question = make_question(model, mode=True)
    before = copy.deepcopy(model.state_dict())
    LIBRARIES[name](question)(normal(1, 55))
    changes = [
        what
        for what, is_same in (
            ("mode", all(module.training for module in model.modules())),
            ("gradients", model[2].weight.grad is None and model[0].weight.grad is not None
             and bool((model[0].weight.grad == 1).all())),
            ("parameters", all(torch.equal(before[k], v) for k, v in model.state_dict().items())),
        )
        if not is_same
    ]  # fmt: skip
    return Verdict("wrong", f"{' and '.join(changes)} changed") if changes else Verdict("correct")


def judge_signs(name: str) -> Verdict:
    """The number of negative eigenvalues of a float32 model."""
    question = make_question(mlp(nn.ReLU))
    assert question.expected is not None
    exact = torch.linalg.eigvalsh(question.expected)
    expected = int((exact < -1e-12 * exact[-1]).sum())
    question = Question(
        question.model.float(), question.loss_fn, [(normal(23, 6).float(), labels(23))], None
    )
    if name == "hesspipe":
        objective = hesspipe.Objective(question.model, question.loss_fn, question.data)
        found = hesspipe.spectrum(objective).num_negative
    else:
        matrix = LIBRARIES[name](question)(torch.eye(55))
        found = int((torch.linalg.eigvalsh(matrix) < 0).sum())
    if found == expected:
        return Verdict("correct")
    return Verdict("wrong", f"{found} negative instead of {expected}")


def judge_eigenvalues(name: str) -> Verdict:
    """The 30 eigenvalues of largest magnitude, by the default solver of each library."""
    model = drawn(nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 10), nn.Tanh(),
                                nn.Linear(10, 3)))  # fmt: skip
    question = make_question(model)
    assert question.expected is not None
    exact = torch.linalg.eigvalsh(question.expected)
    expected = exact[exact.abs().argsort(descending=True)[:_NUM_EIGENVALUES]]
    said = ""
    if name == "hesspipe":
        objective = hesspipe.Objective(model, question.loss_fn, question.data)
        found = hesspipe.eigenpairs(
            objective, num_smallest=_NUM_EIGENVALUES, num_largest=_NUM_EIGENVALUES
        ).eigenvalues
    elif name == "curvlinops":
        parameters = list(model.parameters())
        operator = curvlinops.HessianLinearOperator(
            model, question.loss_fn, parameters, question.data
        )
        found = torch.from_numpy(eigsh(operator.to_scipy(), _NUM_EIGENVALUES)[0])
    elif name == "hessian-eigenthings":
        loss_fn = hessian_eigenthings.supervised_loss(question.loss_fn)
        operator = hessian_eigenthings.HessianOperator(model, question.data, loss_fn)
        result = lanczos(operator, k=_NUM_EIGENVALUES, seed=0)
        found = result.eigenvalues
        said = f", {int(result.converged.sum())} reported as converged"
    else:
        torch.manual_seed(0)
        operator = pyhessian.hessian(model, question.loss_fn, data=question.data[0], cuda=False)
        found = torch.tensor(operator.eigenvalues(top_n=_NUM_EIGENVALUES)[0], dtype=torch.float64)
    found = found[found.abs().argsort(descending=True)[:_NUM_EIGENVALUES]]
    errors = (found.sort().values - expected.sort().values).abs() / expected.abs().max()
    num_wrong = int((errors > _ALLOWED_EIGENVALUE_ERROR * expected.abs().min()).sum())
    if num_wrong == 0:
        return Verdict("correct")
    return Verdict("wrong", f"{num_wrong} of {_NUM_EIGENVALUES}{said}")


SPECIAL: dict[str, Callable[[str], Verdict]] = {
    "second operator for one model": judge_second_use,
    "model left unchanged": judge_state,
    "loader that augments": judge_augmentation,
    "signs of eigenvalues, float32 model": judge_signs,
    f"{_NUM_EIGENVALUES} largest eigenvalues in magnitude": judge_eigenvalues,
}


def verdicts() -> dict[str, dict[str, Verdict]]:
    """All questions to all libraries."""
    rows: dict[str, dict[str, Verdict]] = {}
    for row in [*QUESTIONS, *SPECIAL]:
        rows[row] = {}
        for name, multiply in LIBRARIES.items():
            torch.manual_seed(0)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # deprecations in the other libraries
                    special = SPECIAL.get(row)
                    verdict = special(name) if special else judge(multiply, QUESTIONS[row]())
            except Exception as error:
                lines = str(error).splitlines() or [""]
                verdict = Verdict("refused", f"{type(error).__name__}: {lines[0]}")
            rows[row][name] = verdict
            print(f"{row}: {name} {verdict.kind} {verdict.detail}", flush=True)
    return rows


# The cross-check with curvlinops.


class WrittenOutNorm(nn.Module):
    """Layer normalization by elementary operations, with scale and shift."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.eps = 1e-5  # nn.LayerNorm's

    def forward(self, inputs: Tensor) -> Tensor:
        """The same numbers as nn.LayerNorm."""
        centered = inputs - inputs.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        return centered / (variance + self.eps).sqrt() * self.weight + self.bias


class Transformer(nn.Module):
    """Two layers of an encoder over 3 places."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        layer.norm1, layer.norm2 = norm(8), norm(8)
        self.embed, self.last = nn.Linear(2, 8), nn.Linear(24, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of the classes."""
        outputs: Tensor = self.last(self.encoder(self.embed(inputs.view(-1, 3, 2))).flatten(1))
        return outputs


def networks() -> dict[str, nn.Module]:
    """Those that are compared."""
    convolutions = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 8, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    # In training mode, without dropout: the fused layer of evaluation mode has no derivative.
    return {
        "MLP": mlp(),
        "convolutional": drawn(convolutions),
        "batch norm, evaluation mode": normalized_mlp().eval(),
        "transformer, layer norm written out": drawn(Transformer(WrittenOutNorm)).train(),
        "transformer, nn.LayerNorm": drawn(Transformer(nn.LayerNorm)).train(),
    }


def cross_check() -> dict[str, tuple[int, list[float]]]:
    """P, and the largest relative differences of products.

    Of H and G between the two libraries, and of H by each from central differences of the
    gradient, which use no second derivative.
    """
    rows = {}
    inputs, targets = normal(23, 6), labels(23)
    data = list(zip(inputs.split(8), targets.split(8), strict=True))
    for name, model in networks().items():
        loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
        objective = hesspipe.Objective(model, loss_fn, data)
        vectors = normal(4, objective.num_parameters, seed=6)
        products = {}
        for matrix, own, other in (
            ("hessian", hesspipe.HessianOperator, curvlinops.HessianLinearOperator),
            ("ggn", hesspipe.GGNOperator, curvlinops.GGNLinearOperator),
        ):
            ours = (own(objective) @ vectors.T).T
            with sdpa_kernel(SDPBackend.MATH):
                theirs = (other(model, loss_fn, parameters, data) @ vectors.T).T
            products[matrix] = (ours, theirs)
        differences = by_differences(model, inputs, targets, vectors)
        pairs = [*products.values(), *((one, differences) for one in products["hessian"])]
        errors = [float((one - other).abs().max() / other.abs().max()) for one, other in pairs]
        rows[name] = (objective.num_parameters, errors)
    return rows


def by_differences(model: nn.Module, inputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
    """Central differences of the gradient along each vector, (K, P)."""
    model = copy.deepcopy(model)
    start = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(theta: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(theta, model.parameters())
        loss = functional.cross_entropy(model(inputs), targets)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    step = _DIFFERENCE_STEP
    return torch.stack(
        [(gradient(start + step * v) - gradient(start - step * v)) / (2 * step) for v in vectors]
    )


def format_report(
    rows: dict[str, dict[str, Verdict]], check: dict[str, tuple[int, list[float]]]
) -> str:
    """Both tables, the error messages, and the versions."""
    names = list(LIBRARIES)
    lines = [f"| question | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    messages = []
    for row, by_name in rows.items():
        cells = []
        for name in names:
            verdict = by_name[name]
            is_wrong = verdict.kind == "wrong"
            cells.append(f"**wrong** {verdict.detail}" if is_wrong else verdict.kind)
            if verdict.kind == "refused":
                messages.append(f"- {row}: {name}: `{verdict.detail.replace('`', '')[:220]}`")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    kinds = ("correct", "refused", "wrong")
    totals = [
        " / ".join(str(sum(by[name].kind == kind for by in rows.values())) for kind in kinds)
        for name in names
    ]
    lines.append(f"| **correct / refused / wrong** | {' | '.join(totals)} |")
    compared_rows = [
        f"| {name} | {size:,} | {' | '.join(f'{error:.0e}' for error in errors)} |"
        for name, (size, errors) in check.items()
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"""# Silent errors: a comparison

Products of the Hessian with three vectors, float64, 23 samples, against loops of torch.autograd
over a single batch; relative differences above {_ALLOWED_ERROR:.0e} count as
wrong, and any exception as refused. Written by `benchmarks/wrong_answers.py`.

{chr(10).join(lines)}

For a model in training mode, the matrix of evaluation mode counts as correct. Eigenvalues must be
correct to {_ALLOWED_EIGENVALUE_ERROR:.0%} of the smallest requested one.

## Products compared with curvlinops

Batches of 8, 8 and 7; the largest difference over the largest entry, of products with 4 vectors.
Attention runs in the plain kernel, which was selected by hand for curvlinops. Central
differences of the gradient use no second derivative and are accurate to about 1e-8. curvlinops
takes the second derivative
forward over backward, which is wrong for nn.LayerNorm in this version of torch; see
[pytorch #196700](https://github.com/pytorch/pytorch/issues/196700).

| network | P | H: both | G: both | H: hesspipe and differences | H: curvlinops and differences |
|---|---:|---:|---:|---:|---:|
{chr(10).join(compared_rows)}

## Error messages

{chr(10).join(messages)}

Python {platform.python_version()}, torch {torch.__version__}; {packages}.
"""


def main(path_to_report: Path) -> None:
    """Run all comparisons and write the report."""
    torch.set_num_threads(1)
    path_to_report.write_text(format_report(verdicts(), cross_check()), encoding="utf-8")
    print(path_to_report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    main(parser.parse_args().output)
