"""Questions on state, precision, eigenvalues, counts and traces, by family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import curvlinops
import hessian_eigenthings
import numpy as np
import torch
from hessian_eigenthings.algorithms import lanczos
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import hesspipe
from battery.libraries import (
    ALLOWED_ERROR,
    LIBRARIES,
    FunctionLoss,
    NotOfferedError,
    Question,
    Verdict,
    compared,
    curvlinops_operator,
    eigenthings_operator,
    hesspipe_objective,
    is_varied,
    judge,
    judge_products,
    labels,
    make_question,
    normal,
    pyhessian_operator,
)
from battery.networks import drawn, mlp

Judged = Callable[[str], Verdict]

# The default tolerances of the eigensolvers are 1e-3 to 1e-8.
ALLOWED_EIGENVALUE_ERROR = 1e-2
# Of a number or a trace that is stated without an interval.
ALLOWED_ESTIMATE_ERROR = 0.1
NUM_EIGENVALUES = 30
NUM_SEEDS = 3
# For a trace, as hesspipe's default; curvlinops has none.
_NUM_PRODUCTS = 90
# Of the loss, and of a penalty on the parameters.
_SMALL, _PENALTY = 1e-24, 0.1


# State.


def judge_second_use(name: str) -> Verdict:
    """A second operator for the same model."""
    question = make_question(mlp())
    LIBRARIES[name](question)
    return judge(name, question)


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


def judge_change(name: str, change: Callable[[Question], None]) -> Verdict:
    """The matrix before a change or after it, but no mixture.

    The change comes between the first product of an operator and the next ones.
    """
    question = make_question(mlp(), nn.CrossEntropyLoss(), 8, labels(24))
    multiply = LIBRARIES[name](question)
    multiply(normal(1, 55, seed=9))
    change(question)
    inputs, targets = (torch.cat(parts) for parts in zip(*question.data, strict=True))
    after = make_question(
        copy.deepcopy(question.model), question.loss_fn, targets=targets, inputs=inputs
    )
    both = (*question.answers, *after.answers)
    asked = Question(question.model, question.loss_fn, question.data, both)
    return judge_products(multiply, asked)


def smooth_labels(question: Question) -> None:
    """Change the loss."""
    assert isinstance(question.loss_fn, nn.CrossEntropyLoss)
    question.loss_fn.label_smoothing = 0.5


def shift_inputs(question: Question) -> None:
    """Change one batch in place."""
    question.data[1][0].add_(1)


def train_on(question: Question) -> None:
    """Change the parameters in place, as an optimizer does."""
    with torch.no_grad():
        for parameter in question.model.parameters():
            parameter.mul_(1.5)


class Penalized(nn.Module):
    """A loss that holds the model and adds a penalty on its parameters."""

    reduction = "mean"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy and the sum of squares."""
        penalty = torch.stack([p.square().sum() for p in self.model.parameters()]).sum()
        return functional.cross_entropy(outputs, targets) + _PENALTY * penalty


def judge_penalty(name: str) -> Verdict:
    """The penalty is part of the loss, and of H."""
    plain = make_question(mlp())
    size = len(plain.answers[0])
    answer = plain.answers[0] + 2 * _PENALTY * torch.eye(size, dtype=torch.float64)
    return judge(name, Question(plain.model, Penalized(plain.model), plain.data, (answer,)))


def judge_augmentation(name: str) -> Verdict:
    """Two products with one vector, where the loader draws new data each time."""
    dataset = TensorDataset(normal(23, 6), labels(23))

    class Augmenting:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            loader = DataLoader(dataset, batch_size=8, shuffle=True)
            return ((inputs + 0.1 * torch.randn_like(inputs), y) for inputs, y in loader)

        def __len__(self) -> int:
            return 3

    multiply = LIBRARIES[name](Question(mlp(), nn.CrossEntropyLoss(), Augmenting(), ()))
    vectors = normal(3, 55, seed=5)
    return compared(multiply(vectors), multiply(vectors), ALLOWED_ERROR)


# Precision.


def judge_signs(name: str) -> Verdict:
    """The number of negative eigenvalues of a float32 model."""
    question = make_question(mlp(nn.ReLU))
    exact = torch.linalg.eigvalsh(question.answers[0])
    expected = int((exact < -1e-12 * exact[-1]).sum())
    question = _in_float32(question, question.loss_fn)
    if name == "hesspipe":
        objective = hesspipe.Objective(question.model, question.loss_fn, question.data)
        found = hesspipe.spectrum(objective).num_negative
    else:
        matrix = LIBRARIES[name](question)(torch.eye(55))
        found = int((torch.linalg.eigvalsh(matrix) < 0).sum())
    if found == expected:
        return Verdict("correct")
    return Verdict("wrong", f"{found} negative instead of {expected}")


def judge_small_loss(name: str) -> Verdict:
    """The largest eigenvalue of a loss of 1e-24 in float32; its square underflows."""
    loss_fn = FunctionLoss(lambda outputs, y: _SMALL * functional.cross_entropy(outputs, y))
    question = make_question(mlp())
    expected = _SMALL * torch.linalg.eigvalsh(question.answers[0])[-1:]
    question = _in_float32(question, loss_fn)
    if name == "hesspipe":
        objective = hesspipe_objective(question)
        values = hesspipe.eigenpairs(objective, num_largest=1, tolerance=1e-5).eigenvalues
        found = Found(values)
    else:
        found = extreme_eigenvalues(name, question, 0, 1)
    return compared_values(found, expected)


def judge_complex(name: str) -> Verdict:
    """The product with a complex vector is complex."""
    question = make_question(mlp())
    vector = (normal(55, seed=5) + 1j * normal(55, seed=6)).numpy()
    expected = torch.from_numpy(question.answers[0].numpy() @ vector)
    product: Any
    if name == "hesspipe":
        product = hesspipe.HessianOperator(hesspipe_objective(question)) @ vector
    elif name == "curvlinops":
        product = curvlinops_operator(question).to_scipy() @ vector
    else:
        product = LIBRARIES[name](question)(torch.from_numpy(vector)[None])[0]
    return compared(torch.as_tensor(product), expected, ALLOWED_ERROR)


def judge_asymmetry(name: str) -> Verdict:
    """Largest eigenvalue of a matrix that is not symmetric: that value, or an error."""
    matrix = torch.diag(torch.linspace(1, 10, 40, dtype=torch.float64))
    matrix += normal(40, 40, seed=8).triu(1)
    if name == "hesspipe":
        found = Found(hesspipe.eigenpairs(matrix, num_largest=1).eigenvalues)
    elif name == "hessian-eigenthings":
        operator = hessian_eigenthings.LambdaOperator(lambda v: matrix @ v, 40, dtype=matrix.dtype)
        found = _by_lanczos(operator, k=1, max_iter=40, which="LA")
    else:
        raise NotOfferedError
    return compared_values(found, torch.tensor([10.0], dtype=torch.float64))


def _in_float32(question: Question, loss_fn: Any) -> Question:
    data = [(inputs.float(), targets) for inputs, targets in question.data]
    return Question(question.model.float(), loss_fn, data, ())


# Eigenvalues, by the default solver of each library.


def wide_mlp() -> Any:
    """A network of 553 parameters."""
    return drawn(nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 10), nn.Tanh(),
                               nn.Linear(10, 3)))  # fmt: skip


def trained(model: nn.Module, targets: Tensor) -> nn.Module:
    """After 300 steps of Adam on the square loss."""
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        adam.zero_grad()
        functional.mse_loss(model(normal(23, 6)), targets).backward()
        adam.step()
    adam.zero_grad()
    return model


@dataclass(frozen=True)
class Found:
    """Eigenvalues, and which of them the library reports as converged; by default all."""

    values: Tensor
    is_converged: Tensor | None = None


def extreme_eigenvalues(name: str, question: Question, num_smallest: int, num: int) -> Found:
    """The smallest and the largest `num` eigenvalues."""
    if name == "hesspipe":
        return Found(hesspipe.eigenpairs(
            hesspipe_objective(question), num_smallest=num_smallest, num_largest=num
        ).eigenvalues)  # fmt: skip
    ends = [(k, which) for k, which in ((num_smallest, "SA"), (num, "LA")) if k]
    if name == "curvlinops":
        operator = curvlinops_operator(question).to_scipy()
        parts = [_by_arpack(operator, k, which) for k, which in ends]
        return Found(torch.cat(parts))
    if name == "hessian-eigenthings":
        operator = eigenthings_operator(question)
        results = [_by_lanczos(operator, k=k, which=which) for k, which in ends]
        flags = [result.is_converged for result in results if result.is_converged is not None]
        return Found(torch.cat([result.values for result in results]), torch.cat(flags))
    if num_smallest:
        raise NotOfferedError
    values = pyhessian_operator(question).eigenvalues(top_n=num)[0]
    return Found(torch.tensor(values, dtype=torch.float64))


def _by_arpack(operator: Any, k: int, which: str) -> Tensor:
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    return torch.from_numpy(eigsh(operator, k, which=which, v0=start)[0])


def _by_lanczos(operator: Any, **settings: Any) -> Found:
    result = lanczos(operator, seed=0, **settings)
    return Found(result.eigenvalues, result.converged)


def judge_largest_magnitudes(name: str) -> Verdict:
    """The 30 eigenvalues of largest magnitude."""
    question = make_question(wide_mlp())
    exact = torch.linalg.eigvalsh(question.answers[0])
    expected = exact[exact.abs().argsort(descending=True)[:NUM_EIGENVALUES]]
    if name == "hesspipe":
        found = extreme_eigenvalues(name, question, NUM_EIGENVALUES, NUM_EIGENVALUES)
        largest = found.values.abs().argsort(descending=True)[:NUM_EIGENVALUES]
        found = Found(found.values[largest])
    elif name == "curvlinops":
        operator = curvlinops_operator(question).to_scipy()
        found = Found(_by_arpack(operator, NUM_EIGENVALUES, "LM"))
    elif name == "hessian-eigenthings":
        found = _by_lanczos(eigenthings_operator(question), k=NUM_EIGENVALUES)
    else:
        found = extreme_eigenvalues(name, question, 0, NUM_EIGENVALUES)
    return compared_values(found, expected)


def judge_multiplicity(name: str) -> Verdict:
    """The largest six eigenvalues of a linear model, of which the first has multiplicity 5."""
    model = drawn(nn.Linear(6, 5, bias=False))
    question = make_question(model, nn.MSELoss(), targets=normal(23, 5, seed=3))
    expected = torch.linalg.eigvalsh(question.answers[0])[-6:]
    return compared_values(extreme_eigenvalues(name, question, 0, 6), expected)


def judge_both_ends(name: str) -> Verdict:
    """The five smallest and the five largest eigenvalues of an indefinite H."""
    question = make_question(wide_mlp())
    exact = torch.linalg.eigvalsh(question.answers[0])
    expected = torch.cat([exact[:5], exact[-5:]])
    return compared_values(extreme_eigenvalues(name, question, 5, 5), expected)


def compared_values(found: Found, expected: Tensor) -> Verdict:
    """Relative to the smallest one that was asked for.

    Only values that are reported as converged can be wrong; a report that others are not is a
    refusal.
    """
    values, order = found.values.double().sort()
    errors = (values - expected.sort().values).abs()
    is_wrong = errors > ALLOWED_EIGENVALUE_ERROR * expected.abs().min()
    if found.is_converged is None:
        is_converged = torch.ones_like(is_wrong)
    else:
        is_converged = found.is_converged[order]
    num_wrong = int((is_wrong & is_converged).sum())
    said = f"{int(is_converged.sum())} of {len(expected)} reported as converged"
    if num_wrong:
        told = "" if is_converged.all() else f", {said}"
        return Verdict("wrong", f"{num_wrong} of {len(expected)}{told}")
    return Verdict("refused", said) if is_wrong.any() else Verdict("correct")


# Estimates, each from three seeds.


def judge_count(name: str, share: float) -> Verdict:
    """The number of eigenvalues above a share of the largest, from a density."""
    question = make_question(wide_mlp())
    exact = torch.linalg.eigvalsh(question.answers[0])
    threshold = share * float(exact[-1])
    expected = int((exact > threshold).sum())
    said, is_right = [], True
    for seed in range(NUM_SEEDS):
        torch.manual_seed(seed)
        low, high = _count_above(name, question, threshold, seed)
        is_right = is_right and low <= expected <= high
        said.append(f"{low}" if low == high else f"{low} to {high}")
    told = f"{', '.join(dict.fromkeys(said))} for {expected}"
    return Verdict("correct" if is_right else "wrong", told)


def _count_above(name: str, question: Question, threshold: float, seed: int) -> tuple[int, int]:
    """The interval that is stated, or the nearest integer and 10 %."""
    if name == "hesspipe":
        count = hesspipe.density(hesspipe_objective(question), seed=seed).count(low=threshold)
        return count.low, count.high
    size = int(is_varied(question.model).sum())
    if name == "curvlinops":
        grid, density = curvlinops.lanczos_approximate_spectrum(curvlinops_operator(question), 80)
        share = float(torch.trapezoid(density * (grid > threshold), grid))
    elif name == "hessian-eigenthings":
        result = hessian_eigenthings.spectral_density(eigenthings_operator(question), seed=seed)
        is_above = result.raw_eigenvalues > threshold
        share = float((result.raw_weights * is_above).sum(1).mean())
    else:
        nodes, weights = map(torch.tensor, pyhessian_operator(question).density())
        share = float((weights * (nodes > threshold)).sum(1).mean())
    return _with_allowance(size * share)


def _with_allowance(value: float) -> tuple[int, int]:
    """All integers that differ from the value by 10 % or rounding."""
    allowed = max(0.5, ALLOWED_ESTIMATE_ERROR * abs(value))
    return int(np.ceil(value - allowed)), int(np.floor(value + allowed))


def judge_trace(name: str) -> Verdict:
    """The trace of H at a minimum, where positive and negative eigenvalues do not cancel."""
    targets = normal(23, 3, seed=3)
    question = make_question(trained(wide_mlp(), targets), nn.MSELoss(), targets=targets)
    expected = float(question.answers[0].trace())
    errors = []
    for seed in range(NUM_SEEDS):
        torch.manual_seed(seed)
        errors.append(abs(_trace(name, question, seed) / expected - 1))
    if max(errors) <= ALLOWED_ESTIMATE_ERROR:
        return Verdict("correct")
    return Verdict("wrong", f"by {max(errors):.1%}")


def _trace(name: str, question: Question, seed: int) -> float:
    """By the better estimator of each library, with its default number of products."""
    if name == "hesspipe":
        return hesspipe.estimate_norms(hesspipe_objective(question), seed=seed).trace.value
    if name == "curvlinops":
        return float(curvlinops.xtrace(curvlinops_operator(question), _NUM_PRODUCTS))
    if name == "hessian-eigenthings":
        return float(hessian_eigenthings.trace(eigenthings_operator(question), seed=seed).estimate)
    return float(np.mean(pyhessian_operator(question).trace()))


RANDOM: dict[str, Judged] = {"loader that augments": judge_augmentation}

PRECISION: dict[str, Judged] = {
    "signs of eigenvalues, float32 model": judge_signs,
    "largest eigenvalue, loss of 1e-24 in float32": judge_small_loss,
    "product with a complex vector": judge_complex,
    "largest eigenvalue, matrix not symmetric": judge_asymmetry,
}

STATE: dict[str, Judged] = {
    "second operator for one model": judge_second_use,
    "model left unchanged": judge_state,
    "loss changed afterwards": partial(judge_change, change=smooth_labels),
    "inputs changed in place afterwards": partial(judge_change, change=shift_inputs),
    "parameters changed in place afterwards": partial(judge_change, change=train_on),
    "loss that holds the model, and a penalty": judge_penalty,
}

EIGENVALUES: dict[str, Judged] = {
    f"{NUM_EIGENVALUES} largest eigenvalues in magnitude": judge_largest_magnitudes,
    "multiplicity 5, largest 6 eigenvalues": judge_multiplicity,
    "5 eigenvalues at each end": judge_both_ends,
    "number above 10 % of the largest": partial(judge_count, share=0.1),
    "number above 0.1 % of the largest": partial(judge_count, share=1e-3),
    "number above 0.001 % of the largest": partial(judge_count, share=1e-5),
    "trace at a minimum": judge_trace,
}
