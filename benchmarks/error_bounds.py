"""Compare every eigenvalue of random small networks with one of 50 digits.

Claim: no eigenvalue of H, G or R is further from the true one than `Spectrum.error_bound`.

The reference is `tests/many_digits.py`: the gradient written out in mpmath, differences with 110
digits, and an eigensolver with 50. Every tenth network has up to 150 parameters, the others up to
40. Networks that hesspipe refuses are counted.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import hesspipe

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


def main() -> None:
    """Print how many bounds were violated, and how tight they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    options = parser.parse_args()
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
