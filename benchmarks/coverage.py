"""Measure how often the error bars of the estimates hold the exact values.

Claim: over 300 seeds on each of five spectra, three standard errors hold the trace and the
Frobenius norm in about as many cases as Student's law says, and the intervals for counts, moments
and smoothed densities hold in at least as many as stated.

python benchmarks/coverage.py     (minutes on one core)
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hesspipe.linalg.density import density
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.trace import estimate_norms

_SIZE = 400
_NUM_SEEDS = 300
_PRODUCTS = (12, 30, 45, 90)
_PROBES, _STEPS = 3, 40
_BARS = 3.0
_CONFIDENCES = (0.999, 0.9)
# Of sums over all eigenvalues: errors below are no errors of the estimate.
_ROUNDING = 1e-12


def spectra() -> dict[str, Tensor]:
    """Eigenvalues like those of networks, and harder ones."""
    random = torch.Generator().manual_seed(0)
    normal = torch.randn(_SIZE, generator=random, dtype=torch.float64)
    decades = normal.sign() * 10 ** (-2 - normal.abs())
    network = torch.cat([decades[12:], torch.logspace(-1, 1, 12, dtype=torch.float64)])
    network[:150] = 0.0
    return {
        "network: zeros, bulk, 12 outliers": network,
        "normal": normal,
        "1 / k^2": torch.arange(1, _SIZE + 1, dtype=torch.float64) ** -2,
        "0.8^k": 0.8 ** torch.arange(_SIZE, dtype=torch.float64),
        "50 ones": (torch.arange(_SIZE) < 50).to(torch.float64),
    }


def rotated(values: Tensor) -> SymmetricProduct:
    """Make a symmetric operator with these eigenvalues, in general position."""
    random = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(_SIZE, _SIZE, generator=random, dtype=torch.float64)).Q
    matrix = (basis * values) @ basis.T
    matrix = (matrix + matrix.T) / 2
    return SymmetricProduct(matrix.__matmul__, _SIZE, torch.float64, torch.device("cpu"))


Case = tuple[str, float, float]  # label, error, error bar


def norm_cases(values: Tensor, product: SymmetricProduct, seed: int) -> Iterator[Case]:
    """Trace and Frobenius norm, by XTrace and by Hutch++."""
    for num_products in _PRODUCTS:
        found = estimate_norms(product, num_products=num_products, seed=seed)
        for name, estimate, exact in (
            ("trace", found.trace, float(values.sum())),
            ("Frobenius norm", found.frobenius_norm, float(values.norm())),
        ):
            label = f"{name}, {num_products} products"
            yield label, estimate.value - exact, _BARS * estimate.standard_error


def density_cases(values: Tensor, found: Density) -> Iterator[Case]:
    """Moments, smoothed densities and counts, by the distance from the interval."""
    for power in (1, 2, 3):
        exact = float((values**power).sum())
        for confidence in _CONFIDENCES:
            moment = found.moment(power, confidence=confidence)
            error = max(moment.low - exact, exact - moment.high, 0.0)
            yield f"moment {power}, {100 * confidence:g} %", error, 0.0
    middle, width = float(values.median()), float(values.max() - values.min()) / 20
    for confidence in _CONFIDENCES:
        for place, at in (("the median", middle), ("the largest", float(values.max()))):
            curve = found.evaluate(torch.tensor([at]), width, confidence=confidence)
            kernel = torch.exp(-0.5 * ((values - at) / width).square())
            exact = float(kernel.mean()) / (width * math.sqrt(2 * math.pi))
            error = max(float(curve.low) - exact, exact - float(curve.high), 0.0)
            yield f"smoothed density at {place}, {100 * confidence:g} %", error, 0.0
    ordered = values.sort().values
    for above in (5, 20, 100):
        threshold = float(ordered[-above - 1] + ordered[-above]) / 2
        number = int((values > threshold).sum())
        for confidence in _CONFIDENCES:
            try:
                count = found.count(low=threshold, confidence=confidence)
            except ValueError:  # within rounding of a node
                continue
            error = max(count.low - number, number - count.high, 0)
            yield f"count of {above}, {100 * confidence:g} %", float(error), 0.0


def measure(values: Tensor) -> dict[str, np.ndarray]:
    """Collect errors and bars of all cases over the seeds."""
    cases, product = defaultdict(list), rotated(values)
    for seed in range(_NUM_SEEDS):
        found = density(product, num_probes=_PROBES, num_steps=_STEPS, seed=seed)
        for label, error, bar in (
            *norm_cases(values, product, seed),
            *density_cases(values, found),
        ):
            cases[label].append((abs(error), bar + _ROUNDING * float(values.abs().sum())))
    return {label: np.array(pairs) for label, pairs in cases.items()}


def table(measured: dict[str, dict[str, np.ndarray]]) -> str:
    """Shares of the seeds at which the bars hold, as Markdown."""
    labels = list(dict.fromkeys(label for cases in measured.values() for label in cases))
    lines = ["| | " + " | ".join(measured) + " |", "|---" * (len(measured) + 1) + "|"]
    for label in labels:
        cells = [label]
        for cases in measured.values():
            pairs = cases.get(label)
            share = "-" if pairs is None else f"{100 * (pairs[:, 0] <= pairs[:, 1]).mean():.1f}"
            cells.append(share)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/coverage.md"))
    options = parser.parse_args()
    measured = {name: measure(values) for name, values in spectra().items()}
    options.output.write_text(
        "# Coverage of the error bars\n\n"
        f"Percent of {_NUM_SEEDS} seeds at which {_BARS:g} standard errors, or the interval of a "
        f"count, a moment or a smoothed density, hold the exact value; P = {_SIZE}, densities of "
        f"{_PROBES} probes and {_STEPS} steps. Trace and norm by XTrace below 60 products and "
        "by Hutch++ at 90.\n\n" + table(measured) + "\n",
        encoding="utf-8",
    )
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
