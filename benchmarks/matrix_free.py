"""Time products, extreme eigenpairs and spectral densities side by side with three libraries.

Claim: for networks from 4,000 to 2,000,000 parameters the products and densities of hesspipe are
never slower than those of curvlinops, hessian-eigenthings or PyHessian, and are as much faster as
reusing graphs allows. Its eigenpairs take as long as theirs to within a tenth, with more checks.

Times are CPU times of the process on one thread, which other jobs on the machine do not disturb.
Each cell (a task and a size) runs in a separate process. The contestants take turns (A B C A B C),
so that a change in the machine's speed affects all of them, and every result is checked: products
against those of hesspipe, eigenpairs by their residuals, densities by their weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import curvlinops
import hessian_eigenthings
import numpy as np
import pyhessian
import torch
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import hesspipe

_WIDTHS = {
    "4 thousand": (100, 30, 30, 10),
    "94 thousand": (300, 256, 64, 10),
    "1.9 million": (784, 1500, 500, 10),
}
_NUM_SAMPLES = 1000
# Of the largest network, so that a run takes minutes.
_FEWER_SAMPLES, _FEWER_FROM = 200, 10**6
_DESCENT_STEPS = 30
_NUM_PAIRS = 10
_TOLERANCE = 1e-8
_PROBES, _STEPS = 3, 80
_ONE_PROBE_FROM = 10**6
# Lanczos steps tried for hessian-eigenthings, which neither restarts nor has a stopping rule.
_GUESSES = (50, 100, 200, 400)
# A contestant slower than this is timed once.
_SLOW_SECONDS = 5.0
_ALLOWED_ERROR = 1e-11
_TASKS = {
    "products_1": "Products per second, all samples in one batch",
    "products_4": "Products per second, four batches",
    "eigenpairs": "Seconds to the 10 largest eigenpairs of H, to 1e-8",
    "density": "Seconds to a density of H, probes of 80 steps",
}
_PACKAGES = ("hesspipe", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")

_REMARKS = [
    "- On a single batch PyHessian keeps the first-order graph too. Both then do the minimum that "
    "a product needs, 6 matrix products per Linear layer and 2 for the first one, at the peak "
    "speed of this processor. PyHessian has no G, and its density needs `torch.eig`, which torch "
    "has removed.",
    "- curvlinops and hessian-eigenthings build their graphs for every product: 9 matrix products "
    "per layer. Over several batches PyHessian does so too.",
    f"- hessian-eigenthings is run with the fewest of {_GUESSES} steps that suffice. PyHessian "
    "stops by its default rule, where its residual is far from 1e-8. The time of hesspipe includes "
    "reading and checking the objective, true residuals, and a second search for further copies of "
    "the wanted eigenvalues.",
    "- curvlinops' density is computed without reorthogonalization, and hessian-eigenthings' and "
    "hesspipe's with it.",
    "",
]

Batches = list[tuple[Tensor, Tensor]]
Contestants = dict[str, Callable[[], object]]


def make_problem(widths: tuple[int, ...], num_batches: int) -> tuple[nn.Module, Batches]:
    """Train a network for a few steps on ten clusters."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for num_inputs, num_units in pairwise(widths):
        linear = nn.Linear(num_inputs, num_units, dtype=torch.float64)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    centers = torch.randn(widths[-1], widths[0], dtype=torch.float64, generator=generator)
    parameters = list(model.parameters())
    is_large = sum(parameter.numel() for parameter in parameters) > _FEWER_FROM
    num_samples = _FEWER_SAMPLES if is_large else _NUM_SAMPLES
    targets = torch.randint(widths[-1], (num_samples,), generator=generator)
    noise = torch.randn(num_samples, widths[0], dtype=torch.float64, generator=generator)
    inputs = centers[targets] + 2 * noise
    for _ in range(_DESCENT_STEPS):
        slopes = torch.autograd.grad(
            nn.functional.cross_entropy(model(inputs), targets), parameters
        )
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= 0.05 * slope
    sizes = num_samples // num_batches
    return model, list(zip(inputs.split(sizes), targets.split(sizes), strict=True))


def operators(model: nn.Module, batches: Batches, matrix: str) -> dict[str, object]:
    """The contestants' operators, as a user builds them."""
    loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    objective = hesspipe.Objective(model, loss_fn, batches)
    if matrix == "ggn":
        return {
            "hesspipe": hesspipe.GGNOperator(objective),
            "curvlinops": curvlinops.GGNLinearOperator(model, loss_fn, parameters, batches),
            "hessian-eigenthings": hessian_eigenthings.GGNOperator(
                model,
                batches,
                hessian_eigenthings.supervised_forward,
                hessian_eigenthings.supervised_loss_of_output(loss_fn),
            ),
        }
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    return {
        "hesspipe": hesspipe.HessianOperator(objective),
        "curvlinops": curvlinops.HessianLinearOperator(model, loss_fn, parameters, batches),
        "hessian-eigenthings": hessian_eigenthings.HessianOperator(
            model, batches, hessian_eigenthings.supervised_loss(loss_fn)
        ),
        # Copied: the library leaves the gradient in the model.
        "PyHessian": pyhessian.hessian(copy.deepcopy(model), loss_fn, cuda=False, **data),
    }


def multiply(operator: object, vector: Tensor) -> Tensor:
    """One product, by whichever interface."""
    if not isinstance(operator, pyhessian.hessian):
        # Each library has its own operator class.
        product: Tensor = operator @ vector  # type: ignore[operator]
        return product
    parts = vector.split([parameter.numel() for parameter in operator.params])
    parts = [part.view_as(p) for part, p in zip(parts, operator.params, strict=True)]
    if operator.full_dataset:
        _, product_parts = operator.dataloader_hv_product(parts)
    else:
        product_parts = hessian_vector_product(operator.gradsH, operator.params, parts)
    return torch.cat([part.flatten() for part in product_parts])


def time_all(
    contestants: Contestants, num_rounds: int, num_each: int
) -> tuple[dict[str, float], dict[str, object]]:
    """Seconds of the fastest of several rounds, in turn; and each one's result."""
    results, seconds = {}, {}
    for name, compute in contestants.items():
        start = time.process_time()
        results[name] = compute()
        seconds[name] = [time.process_time() - start]
    for _ in range(num_rounds):
        for name, compute in contestants.items():
            if min(seconds[name]) > _SLOW_SECONDS:
                continue
            start = time.process_time()
            for _ in range(num_each):
                compute()
            seconds[name].append((time.process_time() - start) / num_each)
    return {name: min(times) for name, times in seconds.items()}, results


def measure_products(widths: tuple[int, ...], num_batches: int) -> list[dict[str, object]]:
    """Time products with H and with G after the first, which builds what is kept."""
    model, batches = make_problem(widths, num_batches)
    rows = []
    for matrix in ("hessian", "ggn"):
        built = operators(model, batches, matrix)
        size = built["hesspipe"].shape[0]
        vector = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        num_each = 20 if size < 10**4 else 5 if size < 10**6 else 1
        contestants = {name: partial(multiply, built[name], vector) for name in built}
        seconds, products = time_all(contestants, 7 if size < 10**6 else 3, num_each)
        for name, product in products.items():
            error = float((product - products["hesspipe"]).norm() / product.norm())
            if not error <= _ALLOWED_ERROR:
                raise ArithmeticError(f"{name} must agree with hesspipe, got {error:.1e}")
        rows.append({"what": matrix, "value": {name: 1 / s for name, s in seconds.items()}})
    return rows


def residual(operator: hesspipe.HessianOperator, values: Tensor, vectors: Tensor) -> float:
    """Largest residual norm, divided by the largest eigenvalue."""
    vectors = vectors / vectors.norm(dim=0)
    norms = (operator @ vectors - vectors * values).norm(dim=0)
    return float(norms.max() / values.max())


def by_eigenthings(operator: object, exact: hesspipe.HessianOperator) -> tuple[Tensor, Tensor]:
    """The fewest of the guessed steps that reach the tolerance; the last guess otherwise."""
    for steps in _GUESSES:
        found = hessian_eigenthings.lanczos(
            operator, k=_NUM_PAIRS, max_iter=steps, tol=_TOLERANCE, reorthogonalize=True,
            which="LA", seed=0,
        )  # fmt: skip
        vectors = found.eigenvectors
        vectors = vectors if vectors.shape[0] == exact.shape[0] else vectors.T
        if residual(exact, found.eigenvalues, vectors) <= _TOLERANCE:
            break
    return steps, found.eigenvalues, vectors


def measure_eigenpairs(widths: tuple[int, ...], _: int) -> list[dict[str, object]]:
    """Time everything that a user calls."""
    model, batches = make_problem(widths, 1)
    exact = operators(model, batches, "hessian")["hesspipe"]
    size = exact.shape[0]
    steps, *_ = by_eigenthings(operators(model, batches, "hessian")["hessian-eigenthings"], exact)

    def own() -> tuple[Tensor, Tensor]:
        objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), batches)
        found = hesspipe.eigenpairs(objective, num_largest=_NUM_PAIRS, tolerance=_TOLERANCE)
        return found.eigenvalues, found.eigenvectors

    def by_curvlinops() -> tuple[Tensor, Tensor]:
        operator = curvlinops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(model.parameters()), batches
        )
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(
            operator.to_scipy(), k=_NUM_PAIRS, which="LA", tol=_TOLERANCE, v0=start
        )
        return torch.from_numpy(values), torch.from_numpy(vectors)

    def eigenthings() -> tuple[Tensor, Tensor]:
        operator = hessian_eigenthings.HessianOperator(
            model, batches, hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
        )
        found = hessian_eigenthings.lanczos(
            operator, k=_NUM_PAIRS, max_iter=steps, tol=_TOLERANCE, reorthogonalize=True,
            which="LA", seed=0,
        )  # fmt: skip
        vectors = found.eigenvectors
        return found.eigenvalues, vectors if vectors.shape[0] == size else vectors.T

    contestants = {"hesspipe": own, "curvlinops": by_curvlinops, "hessian-eigenthings": eigenthings}
    if size < 10**4:
        contestants["PyHessian"] = partial(by_power_iteration, model, batches)
    seconds, results = time_all(contestants, 2, 1)
    errors = {name: residual(exact, *result) for name, result in results.items()}
    if not errors["hesspipe"] <= _TOLERANCE:
        raise ArithmeticError(f"hesspipe must reach {_TOLERANCE}, got {errors['hesspipe']:.1e}")
    return [{"what": "seconds", "value": seconds}, {"what": "residual", "value": errors},
            {"what": "steps", "value": {"hessian-eigenthings": float(steps)}}]  # fmt: skip


def by_power_iteration(model: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    """Deflated power iteration with the library's stopping rule, at most 100 steps per pair."""
    operator = pyhessian.hessian(
        copy.deepcopy(model), nn.CrossEntropyLoss(), data=batches[0], cuda=False
    )
    values, vectors = operator.eigenvalues(tol=_TOLERANCE, top_n=_NUM_PAIRS)
    columns = [torch.cat([part.flatten() for part in vector]) for vector in vectors]
    return torch.tensor(values, dtype=torch.float64), torch.stack(columns, dim=1).double()


def measure_density(widths: tuple[int, ...], _: int) -> list[dict[str, object]]:
    """Time the quadrature nodes, by the function of each library, with its reorthogonalization."""
    model, batches = make_problem(widths, 1)
    size = sum(parameter.numel() for parameter in model.parameters())
    num_probes = 1 if size > _ONE_PROBE_FROM else _PROBES

    def own() -> float:
        objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), batches)
        found = hesspipe.density(objective, num_probes=num_probes, num_steps=_STEPS)
        return float((found.weights.sum(1) - 1).abs().max())

    def by_curvlinops() -> float:
        operator = curvlinops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(model.parameters()), batches
        )
        curvlinops.lanczos_approximate_spectrum(operator, _STEPS, num_repeats=num_probes)
        return 0.0

    def eigenthings() -> float:
        operator = hessian_eigenthings.HessianOperator(
            model, batches, hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
        )
        hessian_eigenthings.spectral_density(
            operator, num_runs=num_probes, lanczos_steps=_STEPS, seed=0
        )
        return 0.0

    contestants = {"hesspipe": own, "curvlinops": by_curvlinops, "hessian-eigenthings": eigenthings}
    seconds, errors = time_all(contestants, 1, 1)
    if not errors["hesspipe"] <= _ALLOWED_ERROR:
        raise ArithmeticError("the weights must add up to 1")
    return [{"what": f"seconds, probes: {num_probes}", "value": seconds}]


_MEASURES = {
    "products_1": measure_products,
    "products_4": measure_products,
    "eigenpairs": measure_eigenpairs,
    "density": measure_density,
}


def run_cell(task: str, size: str) -> None:
    """Measure one cell and print it as JSON on the last line."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # how PyHessian keeps the graph; deprecations
    rows = _MEASURES[task](_WIDTHS[size], 4 if task.endswith("4") else 1)
    print(json.dumps([{"task": task, "size": size, **row} for row in rows]))


def format_report(rows: list[dict[str, object]]) -> str:
    """One table per task: the measurements, and the ratio of the best peer to hesspipe."""
    names = ["hesspipe", "curvlinops", "hessian-eigenthings", "PyHessian"]
    text = ["# Matrix-free computations: a comparison", ""]
    text.append(
        "ReLU networks of three Linear layers (100-30-30-10, 300-256-64-10, 784-1500-500-10), "
        f"N = {_NUM_SAMPLES:,} samples ({_FEWER_SAMPLES} for the largest) in 10 clusters, "
        "softmax cross-entropy, float64, CPU. "
        "CPU time of one thread, the fastest of several rounds in turn. "
        "Written by `benchmarks/matrix_free.py`.\n"
    )
    for task, title in _TASKS.items():
        is_rate = task.startswith("products")
        text += [f"## {title}", "", f"| P | | {' | '.join(names)} | hesspipe / best peer, speed |"]
        text.append("|---|---|" + "---:|" * (len(names) + 1))
        for row in (row for row in rows if row["task"] == task):
            what, value = row["what"], row["value"]
            if what == "steps":
                continue
            form = "{:.1e}" if what == "residual" else "{:,.1f}" if is_rate else "{:,.2f}"
            cells = [form.format(value[name]) if name in value else "" for name in names]
            peers = [value[name] for name in value if name != "hesspipe"]
            own = value["hesspipe"]
            best = own / max(peers) if is_rate else min(peers) / own
            ratio = "" if what == "residual" else f"{best:.2f}"
            text.append(f"| {row['size']} | {what} | {' | '.join(cells)} | {ratio} |")
        text.append("")
    text += _REMARKS
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    text.append(f"Python {platform.python_version()}, torch {torch.__version__}; {packages}.\n")
    return "\n".join(text)


def main(arguments: argparse.Namespace) -> None:
    """Run each cell in a separate process and write the report."""
    rows: list[dict[str, object]] = []
    for task in arguments.tasks:
        for size in arguments.sizes:
            command = [*shlex.split(arguments.launcher), sys.executable, __file__]
            command += ["--cell", task, size]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{task}, {size}: {done.stderr[-2000:]}")
            print(done.stdout.splitlines()[-1], flush=True)
            rows += json.loads(done.stdout.splitlines()[-1])
            arguments.output.write_text(format_report(rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(_TASKS), choices=_TASKS)
    parser.add_argument("--sizes", nargs="+", default=list(_WIDTHS), choices=_WIDTHS)
    parser.add_argument("--launcher", default="", help="a command to start each cell with")
    parser.add_argument("--cell", nargs=2, help="for the program itself: measure one cell")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parsed = parser.parse_args()
    if parsed.cell:
        run_cell(*parsed.cell)
    else:
        main(parsed)
