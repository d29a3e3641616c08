"""Compare every eigenvalue of random small networks with one of 50 digits.

Claim: no eigenvalue of H, G or R is further from the true one than `Spectrum.error_bound`.

The reference is `tests/many_digits.py`: the gradient written out in mpmath, differences with 110
digits, and an eigensolver with 50. Every tenth network has up to 150 parameters, the others up to
40. Networks that hesspipe refuses are counted.

With --overhead: the time that the bounds and the certificate add to a spectrum of 4,270 parameters,
the paper's network, on one thread, in turn with spectra without them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hesspipe
from hesspipe.curvature.error_bounds import sample_products
from hesspipe.curvature.matrix import Matrix
from hesspipe.networks.architectures import initialize_normal, mlp

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from many_digits import Problem, eigenvalues, random_problem


def _errors(problem: Problem) -> Iterator[tuple[str, float, float, float]]:
    """Yield method, largest error, bound and largest eigenvalue of each matrix."""
    objective = problem.objective()
    for matrix, values in problem.matrices().items():
        found = hesspipe.spectrum(objective, matrix)
        pairs = zip(found.eigenvalues.tolist(), eigenvalues(values), strict=True)
        error = max(float(abs(one - other)) for one, other in pairs)
        yield found.method, error, found.error_bound, float(found.eigenvalues.abs().max())


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _print_overhead(num_repetitions: int) -> None:
    """Time spectra with and without bounds and certificate, in turn."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(1000, 100, generator=random, dtype=torch.float64)
    targets = torch.randint(0, 10, (1000,), generator=random)
    model = mlp(num_inputs=100, hidden_widths=[30, 30], num_outputs=10, activation="relu").double()
    initialize_normal(model, 0.1, random)
    objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    for matrix in Matrix:
        rows = []
        for _ in range(num_repetitions + 1):
            products = _seconds(lambda: sample_products(objective, matrix))  # noqa: B023
            plain, certified = (
                _seconds(lambda: hesspipe.spectrum(objective, matrix, certify=certify))  # noqa: B023
                for certify in (False, True)
            )
            rows.append((products, plain, certified))
        # The first one loads what is needed.
        products, plain, certified = map(statistics.median, zip(*rows[1:], strict=True))
        share = (products + certified - plain) / (plain - products)
        print(
            f"{matrix}: {plain - products:.2f} s without, bounds {products:.2f} s, certificate "
            f"{certified - plain:.2f} s; overhead {100 * share:.0f} %"
        )


def main() -> None:
    """Print how many bounds were violated, and how tight they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--overhead", type=int, metavar="REPETITIONS")
    options = parser.parse_args()
    if options.overhead is not None:
        _print_overhead(options.overhead)
        return
    ratios, relative, counts = [], [], Counter()
    for seed in range(options.first, options.first + options.networks):
        problem = random_problem(seed, max_parameters=40 if seed % 10 else 150)
        try:
            for method, error, bound, largest in _errors(problem):
                counts[method] += 1
                ratios.append(error / bound if bound else float(error > 0))
                relative.append(bound / largest if largest else 0.0)
                if error > bound:
                    print(f"seed {seed}: {problem.loss}, error {error:.1e}, bound {bound:.1e}")
        except ValueError as refusal:
            counts["refused"] += 1
            print(f"seed {seed}: {problem.loss}, {refusal}")
    quantiles = [0.5, 0.9, 0.99, 1.0]
    eps = torch.finfo(torch.float64).eps
    print(dict(counts))
    print(f"violations: {sum(ratio > 1 for ratio in ratios)} of {len(ratios)} spectra")
    print(f"error / bound at the quantiles {quantiles}:", np.quantile(ratios, quantiles))
    print("bound / (eps max|eigenvalue|)", np.quantile(relative, [0.1, 0.5, 0.9]) / eps)


if __name__ == "__main__":
    main()
