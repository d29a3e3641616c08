"""Time the largest eigenpairs of H, inside and outside products, against three libraries and SciPy.

``python benchmarks/eigenpairs_speed.py`` writes benchmarks/eigenpairs_speed.md; it needs the
libraries of envs/benchmarks.txt, and torchvision for ResNet-18. Each cell runs in a process of its
own, where the contestants take turns. Times are CPU times of one thread. Everything that a user
calls is timed: building the operator with its checks, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import curvlinops
import hessian_eigenthings
import numpy as np
import torch
from matrix_free import _GUESSES, _WIDTHS, Batches, by_power_iteration, make_problem
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature.products import BatchProduct

Found = tuple[Tensor, Tensor]
# Network: pairs, tolerance and rounds.
CELLS: dict[str, tuple[int, float, int]] = {
    "4 thousand": (10, 1e-8, 5),
    "94 thousand": (10, 1e-8, 3),
    "1.9 million": (10, 1e-8, 3),
    "ResNet-18": (5, 1e-4, 3),
}


def problem(name: str) -> tuple[nn.Module, Batches]:
    """A network with its data: ResNet-18 in float32, the others in float64."""
    if name != "ResNet-18":
        return make_problem(_WIDTHS[name], 1)
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=10).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    return model, [(images, torch.randint(10, (8,), generator=generator))]


class Timed:
    """CPU seconds inside products of hesspipe."""

    def __init__(self) -> None:
        self.seconds, self.count, plain = 0.0, 0, BatchProduct.__call__

        def multiply(product: BatchProduct, vectors: Tensor) -> Tensor:
            start = time.process_time()
            found = plain(product, vectors)
            self.seconds += time.process_time() - start
            self.count += len(vectors)
            return found

        BatchProduct.__call__ = multiply  # type: ignore[method-assign]


def contestants(
    model: nn.Module, batches: Batches, count: int, tolerance: float
) -> dict[str, Callable[[], Found]]:
    """What a user would call of each library."""
    loss_fn, dtype = nn.CrossEntropyLoss(), next(model.parameters()).dtype

    def operator() -> hesspipe.HessianOperator:
        return hesspipe.HessianOperator(hesspipe.Objective(model, loss_fn, batches, dtype=dtype))

    def own() -> Found:
        found = hesspipe.eigenpairs(operator(), num_largest=count, tolerance=tolerance)
        return found.eigenvalues, found.eigenvectors

    def by_eigsh(make: Callable[[], Any]) -> Found:
        linear = make().to_scipy()
        start = np.random.default_rng(0).standard_normal(linear.shape[0])
        values, vectors = eigsh(linear, k=count, which="LA", tol=tolerance, v0=start)
        return torch.from_numpy(values), torch.from_numpy(vectors)

    def by_curvlinops() -> Any:
        parameters = list(model.parameters())
        return curvlinops.HessianLinearOperator(model, loss_fn, parameters, batches)

    def by_eigenthings(steps: int) -> Found:
        theirs = hessian_eigenthings.HessianOperator(
            model, batches, hessian_eigenthings.supervised_loss(loss_fn)
        )
        found = hessian_eigenthings.lanczos(
            theirs, k=count, max_iter=steps, tol=tolerance, reorthogonalize=True, which="LA", seed=0
        )
        vectors = found.eigenvectors
        return found.eigenvalues, vectors if len(vectors) == operator().shape[0] else vectors.T

    steps = next(
        (n for n in _GUESSES if residual(operator(), *by_eigenthings(n)) <= tolerance), _GUESSES[-1]
    )
    found: dict[str, Callable[[], Found]] = {
        "hesspipe": own,
        "eigsh on hesspipe": partial(by_eigsh, operator),
        "curvlinops": partial(by_eigsh, by_curvlinops),
        f"hessian-eigenthings ({steps} steps)": partial(by_eigenthings, steps),
    }
    if operator().shape[0] < 10**4:
        found["PyHessian"] = partial(by_power_iteration, model, batches)
    return found


def residual(operator: hesspipe.HessianOperator, values: Tensor, vectors: Tensor) -> float:
    """Largest residual norm, divided by the largest eigenvalue."""
    vectors = (vectors / vectors.norm(dim=0)).to(operator.dtype)
    norms = torch.stack([
        (operator @ vector.contiguous() - vector * value).double().norm()
        for vector, value in zip(vectors.T, values.to(vectors), strict=True)
    ])  # fmt: skip
    return float(norms.max() / values.max())


def measure(name: str) -> list[str]:
    """Measure one cell: rows of the table."""
    torch.set_num_threads(1)
    timed = Timed()
    count, tolerance, rounds = CELLS[name]
    model, batches = problem(name)
    objective = hesspipe.Objective(
        model, nn.CrossEntropyLoss(), batches, dtype=next(model.parameters()).dtype
    )
    exact = hesspipe.HessianOperator(objective)
    seconds: dict[str, list[float]] = {}
    inside: dict[str, tuple[float, int]] = {}
    residuals: dict[str, float] = {}
    every = contestants(model, batches, count, tolerance)
    for turn in range(rounds + 1):  # the first one warms up
        for who, compute in every.items():
            timed.seconds, timed.count, start = 0.0, 0, time.process_time()
            found = compute()
            if turn:
                seconds.setdefault(who, []).append(time.process_time() - start)
                inside[who] = timed.seconds, timed.count
            residuals[who] = residual(exact, *found)
    right = {who: times for who, times in seconds.items() if residuals[who] <= tolerance}
    best = min(median(times) for who, times in right.items() if who != "hesspipe")
    rows = []
    for who, times in seconds.items():
        spent, made = inside[who]
        share = f"{made} | {1 - spent / times[-1]:.0%}" if made else " | "
        ratio = f"{best / median(times):.2f}" if who == "hesspipe" else ""
        rows.append(
            f"| {name} | {who} | {median(times):.2f} ({min(times):.2f} to {max(times):.2f}) | "
            f"{share} | {residuals[who]:.0e} | {ratio} |"
        )
    return rows


def main() -> None:
    """Measure all cells in turn, or print one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--only", nargs="*", default=list(CELLS))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    rows = []
    for name in given.only:
        command = [sys.executable, __file__, "--one", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows += json.loads(output.splitlines()[-1])
        print("\n".join(rows[-5:]), flush=True)
    Path(__file__).with_suffix(".md").write_text(
        "# Seconds to the largest eigenpairs of H\n\n"
        "Networks of benchmarks/matrix_free.py in float64, 10 pairs to 1e-8, and ResNet-18 in "
        "float32, 5 pairs to 1e-4, one thread, CPU time: median over rounds in turn, smallest to "
        "largest. The share is that of the time outside products, building and checking the "
        "objective included. The ratio is the fastest peer's time to hesspipe's, among those "
        "whose residual is within the tolerance. Written by `benchmarks/eigenpairs_speed.py`.\n\n"
        "| P | | seconds | products | outside | residual | ratio |\n|---|---|---|---:|---:|---:|"
        "---:|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
