"""Time the largest eigenpairs of H, inside and outside products, against three libraries and SciPy.

``python benchmarks/eigenpairs_speed.py`` writes benchmarks/eigenpairs_speed.md; it needs the
libraries of envs/benchmarks.txt, and torchvision for ResNet-18. Each cell runs in a process of its
own, where the contestants take turns. Times are CPU times of one thread. Everything that a user
calls is timed: building the operator with its checks, too. With ``--rows FILE`` the measurements
are kept, and those of a later call are added to them: ``--only ResNet-18 --rounds 1`` makes one
more round of the longest cell.
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from torchvision_operators import declare_operators

Found = tuple[Tensor, Tensor]
Measured = dict[str, dict[str, Any]]
# Network: pairs, tolerance and rounds.
CELLS: dict[str, tuple[int, float, int]] = {
    "4 thousand": (10, 1e-8, 5),
    "94 thousand": (10, 1e-8, 3),
    "1.9 million": (10, 1e-8, 3),
    "ResNet-18": (5, 1e-4, 3),
}
_OWN_PRODUCTS = "eigsh on hesspipe"


def problem(name: str) -> tuple[nn.Module, Batches]:
    """A network with its data: ResNet-18 in float32, the others in float64."""
    if name != "ResNet-18":
        return make_problem(_WIDTHS[name], 1)
    declare_operators()
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
    model: nn.Module, batches: Batches, count: int, tolerance: float, steps: int | None = None
) -> dict[str, Callable[[], Found]]:
    """What a user would call of each library; hessian-eigenthings with the fewest steps."""
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

    steps = steps or next(
        (n for n in _GUESSES if residual(operator(), *by_eigenthings(n)) <= tolerance), _GUESSES[-1]
    )
    found: dict[str, Callable[[], Found]] = {
        "hesspipe": own,
        _OWN_PRODUCTS: partial(by_eigsh, operator),
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


def measure(name: str, rounds: int, steps: int | None) -> Measured:
    """Measure one cell: seconds of each round, those inside products, and residuals."""
    torch.set_num_threads(1)
    timed = Timed()
    warm_up()
    count, tolerance, _ = CELLS[name]
    model, batches = problem(name)
    objective = hesspipe.Objective(
        model, nn.CrossEntropyLoss(), batches, dtype=next(model.parameters()).dtype
    )
    exact = hesspipe.HessianOperator(objective)
    every = contestants(model, batches, count, tolerance, steps)
    rows: Measured = {who: {"seconds": [], "inside": []} for who in every}
    for _ in range(rounds):
        for who, compute in every.items():
            timed.seconds, timed.count, start = 0.0, 0, time.process_time()
            found = compute()
            rows[who]["seconds"].append(time.process_time() - start)
            rows[who]["inside"].append(timed.seconds)
            rows[who] |= {"products": timed.count, "residual": residual(exact, *found)}
    return rows


def warm_up() -> None:
    """Compute a few pairs with each library: what the first call takes is not measured."""
    for compute in contestants(*problem("4 thousand"), 2, 1e-2, 20).values():
        compute()


def table(name: str, rows: Measured) -> list[str]:
    """Rows of the table: medians over the rounds."""
    tolerance = CELLS[name][1]
    right = [who for who, row in rows.items() if row["residual"] <= tolerance]
    best = min(median(rows[who]["seconds"]) for who in right if who != "hesspipe")
    library = min(
        median(rows[who]["seconds"]) for who in right if who not in {"hesspipe", _OWN_PRODUCTS}
    )
    lines = []
    for who, row in rows.items():
        times, inside = row["seconds"], row["inside"]
        outside = median(1 - part / whole for part, whole in zip(inside, times, strict=True))
        share = f"{row['products']} | {outside:.0%}" if row["products"] else " | "
        own = median(times)
        ratios = f"{library / own:.2f} | {best / own:.2f}" if who == "hesspipe" else " | "
        lines.append(
            f"| {name} | {who} | {own:.2f} ({min(times):.2f} to {max(times):.2f}; {len(times)}) | "
            f"{share} | {row['residual']:.0e} | {ratios} |"
        )
    return lines


def add(old: Measured, new: Measured) -> Measured:
    """Add rounds to those of a cell."""
    for who, row in new.items():
        before = old.get(who, {"seconds": [], "inside": []})
        old[who] = row | {key: before[key] + row[key] for key in ("seconds", "inside")}
    return old


def known_steps(rows: Measured) -> int | None:
    """Steps of hessian-eigenthings that an earlier round has found."""
    names = [who for who in rows if who.startswith("hessian-eigenthings")]
    return int(names[0].split("(")[1].split()[0]) if names else None


def main() -> None:
    """Measure all cells in turn, or print one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--only", nargs="*", default=list(CELLS), choices=CELLS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.rounds or CELLS[given.one][2], given.steps)))
        return
    is_kept = given.rows is not None and given.rows.exists()
    rows: dict[str, Measured] = json.loads(given.rows.read_text()) if is_kept else {}
    for name in given.only:
        command = [sys.executable, __file__, "--one", name]
        command += ["--rounds", str(given.rounds)] if given.rounds else []
        steps = known_steps(rows.get(name, {}))
        command += ["--steps", str(steps)] if steps else []
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[name] = add(rows.get(name, {}), json.loads(output.splitlines()[-1]))
        if given.rows is not None:
            given.rows.write_text(json.dumps(rows))
        print("\n".join(table(name, rows[name])), flush=True)
    lines = [line for name in CELLS if name in rows for line in table(name, rows[name])]
    Path(__file__).with_suffix(".md").write_text(
        "# Seconds to the largest eigenpairs of H\n\n"
        "Networks of benchmarks/matrix_free.py in float64, 10 pairs to 1e-8, and ResNet-18 in "
        "float32, 5 pairs to 1e-4, one thread, CPU time: median over rounds in turn, smallest to "
        "largest and the number of rounds. The share is that of the time outside products, "
        "building and checking the objective included. The ratios are the time of the fastest "
        "library, and of the fastest of all with eigsh on hesspipe's products, to hesspipe's, "
        "among those whose residual is within the tolerance; only hesspipe verifies "
        "multiplicities, for which it needs a quarter of its products. "
        "Written by `benchmarks/eigenpairs_speed.py`.\n\n"
        "| P | | seconds | products | outside | residual | to libraries | to all |\n"
        "|---|---|---|---:|---:|---:|---:|---:|\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
