"""Time products with several vectors at once, which `hesspipe` does where it is faster.

Claim: operators of hesspipe multiply a block of vectors in about the time per vector of the best of
blocks of 1, 4 and 16. CPU time of one thread, the fastest of several rounds in turn.
"""

from __future__ import annotations

import argparse
import platform
import time
from functools import partial
from pathlib import Path

import torch
from eigenpairs_speed import problem
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import BatchProduct
from hesspipe.objective.differentiability import differentiating

_BLOCKS = (1, 4, 16)
_SIZES = ("4 thousand", "94 thousand", "1.9 million", "ResNet-18")


def measure(size: str, num_rounds: int) -> list[str]:
    """Milliseconds per vector, of blocks as they are and of an operator with 16 columns."""
    model, batches = problem(size)
    dtype = next(model.parameters()).dtype
    objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), batches, dtype=dtype)
    vectors = torch.randn(max(_BLOCKS), objective.num_parameters, dtype=dtype)
    lines = []
    for kind in (hesspipe.HessianOperator, hesspipe.GGNOperator):
        operator = kind(objective)
        product = differentiating()(BatchProduct)(
            objective, Matrix(operator.matrix), objective.batches[0]
        )
        multiply = differentiating()(product.__call__)
        contestants = {count: partial(multiply, vectors[:count]) for count in _BLOCKS}
        contestants[0] = partial(_by_operator, operator, vectors)
        seconds = dict.fromkeys(contestants, float("inf"))
        for _ in range(num_rounds):
            for count, compute in contestants.items():
                start = time.process_time()
                compute()
                used = (time.process_time() - start) / (count or len(vectors))
                seconds[count] = min(seconds[count], used)
        cells = [f"{1e3 * seconds[count]:,.2f}" for count in (*_BLOCKS, 0)]
        lines.append(f"| {size} | {operator.matrix} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def _by_operator(operator: hesspipe.HessianOperator, vectors: Tensor) -> Tensor:
    return operator @ vectors.mT


def main(sizes: list[str], num_rounds: int, path_to_report: Path) -> None:
    """Measure all sizes and write the report."""
    torch.set_num_threads(1)
    lines = [
        "# Several vectors at once",
        "",
        "Milliseconds per vector of products with blocks of 1, 4 and 16 vectors, and of an operator"
        " of hesspipe with 16, which takes several at once only where what the graph has saved "
        "fits into the cache. Networks of `benchmarks/matrix_free.py` in float64, one batch; "
        "ResNet-18 in float32 with 8 images of 32 x 32. CPU time of one thread, the fastest of "
        f"{num_rounds} rounds in turn. Written by `benchmarks/blocks.py`.",
        "",
        "| P | | 1 | 4 | 16 | operator, 16 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for size in sizes:
        lines += measure(size, num_rounds)
    lines += ["", f"Python {platform.python_version()}, torch {torch.__version__}.", ""]
    path_to_report.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(_SIZES), choices=_SIZES)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parsed = parser.parse_args()
    main(parsed.sizes, parsed.rounds, parsed.output)
