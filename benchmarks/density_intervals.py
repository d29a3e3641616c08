"""Check the intervals of spectral densities against exact spectra of trained networks.

Claim: an interval of `Density.count` at 99.9 % holds the number of eigenvalues at least 999 times
of 1,000, is a single number between outliers, and needs no product beyond those of the density.

The operator is the diagonal matrix of the exact eigenvalues, which is right in law: the directions
of the start vectors are uniform, whatever the eigenvectors. Thresholds are midpoints between
neighboring eigenvalues, at random ranks of each of four parts of the spectrum.

python benchmarks/density_intervals.py results/spectra     (minutes on one core)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hesspipe.linalg.density import density
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.spectral_density import Density

_NUM_OUTLIERS = 20
_EDGE_SHARE = 0.02


def parts(size: int) -> dict[str, tuple[int, int]]:
    """Ranges of the number of eigenvalues above the threshold."""
    edge = max(round(_EDGE_SHARE * size), _NUM_OUTLIERS + 1)
    return {
        f"between the {_NUM_OUTLIERS} largest": (1, _NUM_OUTLIERS),
        f"next to them, up to {100 * _EDGE_SHARE:.0f} % of all": (_NUM_OUTLIERS, edge),
        "inside the bulk": (edge, size - _NUM_OUTLIERS),
        f"between the {_NUM_OUTLIERS} smallest": (size - _NUM_OUTLIERS, size - 1),
    }


def asked(found: Density, values: np.ndarray, above: int) -> dict[str, float] | None:
    """Compare one interval with the exact number; None if the threshold is refused."""
    order = len(values) - above
    threshold = float(values[order - 1] + values[order]) / 2
    try:
        count = found.count(low=threshold)
    except ValueError:
        return None
    exact = int((values > threshold).sum())
    return {
        "holds": count.low <= exact <= count.high,
        "exact": count.low == count.high,
        "width": (count.high - count.low) / max(min(exact, order), 1),
    }


def measure(paths: list[Path], num_per_part: int) -> pd.DataFrame:
    """Ask each spectrum for thresholds of each part."""
    random = np.random.default_rng(0)
    rows = []
    for path in paths:
        values = np.sort(pd.read_parquet(path)["eigenvalue"].to_numpy())
        entries = torch.from_numpy(values)
        product = SymmetricProduct(
            lambda vector, entries=entries: entries * vector,
            len(values),
            torch.float64,
            torch.device("cpu"),
        )
        found = density(product, seed=int(random.integers(10**6)))
        for part, (first, last) in parts(len(values)).items():
            for above in random.integers(first, last, num_per_part):
                row = asked(found, values, int(above))
                about = {"network": str(path), "size": len(values), "part": part}
                rows.append(about | (row or {"holds": None}))
    return pd.DataFrame(rows)


def table(measured: pd.DataFrame) -> str:
    """Summarize by part, as Markdown."""
    lines = [
        "| threshold | asked | refused | hold | exact | width, median | width, 90 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for part, rows in measured.groupby("part", sort=False):
        stated = rows[rows["holds"].notna()]
        width = stated["width"].astype(float)
        lines.append(
            f"| {part} | {len(rows)} | {len(rows) - len(stated)} "
            f"| {int(stated['holds'].sum())} of {len(stated)} "
            f"| {100 * stated['exact'].astype(float).mean():.0f} % "
            f"| {width.median():.2f} | {width.quantile(0.9):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spectra", type=Path, help="folder with the Parquet files of spectra")
    parser.add_argument("--networks", type=int, default=27)
    parser.add_argument("--thresholds", type=int, default=1100)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/density_intervals.md"))
    options = parser.parse_args()
    everything = sorted(options.spectra.rglob("step*_*.parquet"))
    paths = everything[:: max(1, len(everything) // options.networks)]
    measured = measure(paths, -(-options.thresholds // (4 * len(paths))))
    stated = measured[measured["holds"].notna()]
    sizes = measured["size"]
    options.output.write_text(
        "# Intervals for counts against exact spectra\n\n"
        f"{len(paths)} spectra of H, G and R, P from {sizes.min():,} to {sizes.max():,}, at and "
        "after initialization; densities of 3 probes and 80 steps. "
        f"{int(stated['holds'].sum()):,} of {len(stated):,} intervals at 99.9 % hold the number. "
        "Refused thresholds lie within rounding of a node. Widths are relative to the number "
        "on the smaller side of the threshold.\n\n" + table(measured) + "\n",
        encoding="utf-8",
    )
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
