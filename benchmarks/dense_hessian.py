"""Time the exact dense Hessian of a small network, hesspipe against three public libraries.

Claim: for a 100-30-30-10 ReLU network (P = 4270) on N = 1000 samples, in float64 on a CPU,
hesspipe is several times faster than curvlinops, hessian-eigenthings and PyHessian.

Every timed matrix is compared with that of hesspipe, and a wrong one stops the run. The
contestants take turns (A B C A B C), so that a change in the machine's speed affects all of them.
"""

from __future__ import annotations

import argparse
import copy
import gc
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median

import curvlinops
import hessian_eigenthings
import pyhessian
import torch
from pyhessian.utils import hessian_vector_product
from torch import Tensor, nn

import hesspipe
from hesspipe.hardware import available_bytes

_WIDTHS = (100, 30, 30, 10)
_NUM_SAMPLES = 1000
# Rounding of sums over samples is below 1e-14; any mistake is far above this.
_ALLOWED_ERROR = 1e-12
# A contestant slower than this in its warm-up is timed in two rounds only.
_SLOW_SECONDS = 10.0
_CURVLINOPS_BLOCKS = (16, 32, 64, 128)
# Measured: 7.2 GB at the peak for 4270 columns at once.
_CURVLINOPS_COLUMN_BYTES = 2 * 2**20
_PACKAGES = ("hesspipe", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")


@dataclass(frozen=True)
class Problem:
    """The common problem: a model, a mean loss and one batch."""

    model: nn.Module
    loss_fn: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass
class Contestant:
    """One method for the matrix, and its measurements.

    Attributes
    ----------
    name : str
    compute : callable () -> Tensor
        Timed, including all set-up that a user has to write.
    reference : Tensor or None
        What the result must equal.
    seconds : list of float
        One per timed round.
    error : float
        Largest of all results, max |result - reference| / max |reference|.
    """

    name: str
    compute: Callable[[], Tensor]
    reference: Tensor | None = None
    seconds: list[float] = field(default_factory=list)
    error: float = 0.0

    @property
    def median(self) -> float:
        """Median of the timed rounds, in seconds."""
        return median(self.seconds)

    def run(self) -> float:
        """Compute once, check the result, and return the seconds without the check."""
        gc.collect()  # graphs that refer to themselves, as PyHessian's, would stay until later
        start = time.perf_counter()
        result = self.compute()
        seconds = time.perf_counter() - start
        if self.reference is not None:
            difference = (result - self.reference).abs().max() / self.reference.abs().max()
            self.error = max(self.error, float(difference))
            if not difference <= _ALLOWED_ERROR:
                raise ArithmeticError(f"{self.name} must agree with hesspipe, got {difference:.1e}")
        return seconds


def make_problem() -> Problem:
    """Draw the network and the data; the cost does not depend on their values."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for num_inputs, num_units in pairwise(_WIDTHS):
        linear = nn.Linear(num_inputs, num_units, dtype=torch.float64)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=generator)
        nn.init.normal_(linear.bias, std=0.1, generator=generator)
        layers += [linear, nn.ReLU()]
    inputs = torch.randn(_NUM_SAMPLES, _WIDTHS[0], dtype=torch.float64, generator=generator)
    targets = torch.randint(_WIDTHS[-1], (_NUM_SAMPLES,), generator=generator)
    return Problem(nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), inputs, targets)


def by_hesspipe(problem: Problem, method: str = "auto") -> Tensor:
    """The calls of a user of hesspipe."""
    data = (problem.inputs, problem.targets)
    objective = hesspipe.Objective(problem.model, problem.loss_fn, data)
    return hesspipe.hessian_matrix(objective, method=method)


def by_curvlinops(problem: Problem, columns_per_block: int) -> Tensor:
    """Multiply the operator with blocks of the identity, vectorized over the columns."""
    parameters = list(problem.model.parameters())
    data = [(problem.inputs, problem.targets)]
    operator = curvlinops.HessianLinearOperator(problem.model, problem.loss_fn, parameters, data)
    identity = torch.eye(problem.num_parameters, dtype=torch.float64)
    blocks = identity.split(columns_per_block, dim=1)
    return torch.cat([operator @ block for block in blocks], dim=1)


def by_eigenthings(problem: Problem) -> Tensor:
    """Multiply the operator with unit vectors: it accepts one vector at a time."""
    loss_fn = hessian_eigenthings.supervised_loss(problem.loss_fn)
    data = [(problem.inputs, problem.targets)]
    operator = hessian_eigenthings.HessianOperator(problem.model, data, loss_fn)
    identity = torch.eye(problem.num_parameters, dtype=torch.float64)
    return torch.stack([operator @ vector for vector in identity])


def by_pyhessian(problem: Problem) -> Tensor:
    """Differentiate the gradient, whose graph the library keeps for a single batch.

    The model is copied: the library leaves the gradient in it, and adds a second
    gradient to it, with twice the Hessian as a result.
    """
    data = (problem.inputs, problem.targets)
    operator = pyhessian.hessian(
        copy.deepcopy(problem.model), problem.loss_fn, data=data, cuda=False
    )
    sizes = [parameter.numel() for parameter in operator.params]
    rows = []
    for unit in torch.eye(problem.num_parameters, dtype=torch.float64):
        parts = zip(unit.split(sizes), operator.params, strict=True)
        vector = [part.view_as(parameter) for part, parameter in parts]
        product = hessian_vector_product(operator.gradsH, operator.params, vector)
        rows.append(torch.cat([part.flatten() for part in product]))
    return torch.stack(rows)


def fastest_curvlinops(problem: Problem, reference: Tensor) -> tuple[Contestant, str]:
    """Try several block sizes, and report the time of each."""
    sizes = list(_CURVLINOPS_BLOCKS)
    if problem.num_parameters * _CURVLINOPS_COLUMN_BYTES < available_bytes():
        sizes.append(problem.num_parameters)
    contestants = {
        size: Contestant(
            f"curvlinops, {size} columns at once", partial(by_curvlinops, problem, size), reference
        )
        for size in sizes
    }
    contestants[sizes[0]].run()
    # The better of two: with one, noise would choose.
    seconds = {size: min(contestants[size].run() for _ in range(2)) for size in sizes}
    tried = ", ".join(f"{size}: {seconds[size]:.1f} s" for size in sizes)
    best = min(sizes, key=lambda size: seconds[size])
    return contestants[best], f"curvlinops by columns at once, the better of two: {tried}."


def measure(contestants: list[Contestant], num_repeats: int) -> None:
    """Warm up each, then time all in turn; slow ones in the first and last round only."""
    warm_up = {contestant.name: contestant.run() for contestant in contestants}
    for number in range(num_repeats):
        for contestant in contestants:
            is_slow = warm_up[contestant.name] > _SLOW_SECONDS
            if is_slow and number not in (0, num_repeats - 1):
                continue
            contestant.seconds.append(contestant.run())
            print(
                f"round {number + 1}: {contestant.name} {contestant.seconds[-1]:.2f} s", flush=True
            )


def describe_machine() -> str:
    """Describe CPU, threads and versions."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{cpu}, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}; {packages}."
    )


def format_table(contestants: list[Contestant]) -> str:
    """Format the measurements as a Markdown table; the first contestant is the unit."""
    lines = [
        "| | min (s) | median (s) | max (s) | times | median / hesspipe's | difference |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for contestant in contestants:
        seconds = contestant.seconds
        numbers = [min(seconds), contestant.median, max(seconds)]
        cells = [contestant.name, *(f"{number:.2f}" for number in numbers), f"{len(seconds)}"]
        cells.append(f"{contestant.median / contestants[0].median:.1f}")
        cells.append("" if contestant.reference is None else f"{contestant.error:.0e}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_report(
    problem: Problem,
    own: list[Contestant],
    peers: list[Contestant],
    spectrum: Contestant,
    remark: str,
) -> str:
    """Format the problem, the table and the machine."""
    fastest = min(peers, key=lambda peer: peer.median)
    return f"""# Time to the exact dense Hessian

{"-".join(map(str, _WIDTHS))} ReLU network, P = {problem.num_parameters:,}; N = {_NUM_SAMPLES:,} \
samples; mean softmax cross-entropy; float64; CPU. Written by `benchmarks/dense_hessian.py`.

{format_table([*own, *peers, spectrum])}

The difference is max |H' - H| / max |H|, where H' is the contestant's matrix and H that of \
hesspipe.

- The fastest other library is {fastest.name.split(",")[0]}: \
{fastest.median / own[0].median:.1f} times hesspipe's median.
- hesspipe's median is {own[0].median / spectrum.median:.2f} of that of \
`torch.linalg.eigvalsh` of the result.
- {remark}
- {describe_machine()}
"""


def main(num_threads: int, num_repeats: int, path_to_report: Path) -> None:
    """Measure all contestants and write the report."""
    torch.set_num_threads(num_threads)
    # PyHessian keeps the graph in this way; `Contestant.run` frees it.
    warnings.filterwarnings("ignore", message="Using backward.* with create_graph=True")
    problem = make_problem()
    hessian = by_hesspipe(problem)
    own = [
        Contestant("hesspipe", partial(by_hesspipe, problem), hessian),
        Contestant("hesspipe, method='columns'", partial(by_hesspipe, problem, "columns"), hessian),
    ]
    curvlinops_contestant, remark = fastest_curvlinops(problem, hessian)
    peers = [
        curvlinops_contestant,
        Contestant("hessian-eigenthings, by column", partial(by_eigenthings, problem), hessian),
        Contestant("PyHessian, by column", partial(by_pyhessian, problem), hessian),
    ]
    spectrum = Contestant("`torch.linalg.eigvalsh`", partial(torch.linalg.eigvalsh, hessian))
    measure([*own, *peers, spectrum], num_repeats)
    report = format_report(problem, own, peers, spectrum, remark)
    path_to_report.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    main(arguments.threads, arguments.repeats, arguments.output)
