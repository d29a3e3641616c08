"""Eigenpairs and densities of the largest networks that a machine of 22 GiB holds, in one process.

``python benchmarks/largest.py`` computes the ten largest eigenpairs and a density of 80 steps, and
writes benchmarks/largest.md. Each runs in a process of its own, which may take the given memory and
no more (RLIMIT_DATA), and its peak is that of its resident memory. With ``--width 300`` it takes
seconds, and memory is no limit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_INPUTS, NUM_CLASSES, NUM_INNER = 100, 10, 4
NUM_PAIRS, TOLERANCE, NUM_STEPS = 10, 1e-5, 80
TITLE = """# The largest networks

`python benchmarks/largest.py`: H in float32 of an MLP with ReLU of widths {num_inputs}, {inner},
{num_classes}, at He's initial weights, with cross-entropy on {num_samples} samples around
{num_classes} random centers. Nothing is chosen such that eigenvalues lie apart. One process with
{threads} threads and {gib:g} GiB (RLIMIT_DATA), `MALLOC_MMAP_THRESHOLD_=1000000`. The ten largest
eigenpairs have residuals of at most {tolerance:.0e} of the largest eigenvalue, from products of
their own; the density has one probe of {num_steps} steps.

| | P | peak, GiB | products | s to build | s | found |
|---|---:|---:|---:|---:|---:|---|
"""


def build(width: int, num_samples: int) -> Any:
    """Build the objective of a network with four square layers at its initial weights."""
    import torch
    from torch import nn

    import hesspipe

    torch.manual_seed(0)
    centers = torch.randn(NUM_CLASSES, NUM_INPUTS)
    targets = torch.arange(num_samples) % NUM_CLASSES
    inputs = centers[targets] + 0.5 * torch.randn(num_samples, NUM_INPUTS)
    layers: list[nn.Module] = [nn.Linear(NUM_INPUTS, width), nn.ReLU()]
    for _ in range(NUM_INNER):
        layers += [nn.Linear(width, width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, NUM_CLASSES))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return hesspipe.Objective(model, nn.CrossEntropyLoss(), (inputs, targets), dtype=torch.float32)


def measure(what: str, width: int, num_samples: int, gib: float) -> dict[str, Any]:
    """Compute in this process, limited to so much memory; return what it took and found."""
    import torch

    import hesspipe

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    logging.basicConfig(format="%(message)s")  # says how the basis was chosen
    begin = time.perf_counter()
    objective = build(width, num_samples)
    found: dict[str, Any] = {"P": objective.num_parameters, "built": time.perf_counter() - begin}
    begin = time.perf_counter()
    if what == "eigenpairs":
        pairs = hesspipe.eigenpairs(
            objective, num_largest=NUM_PAIRS, tolerance=TOLERANCE, progress=True
        )
        found["eigenvalues"] = pairs.eigenvalues.tolist()
        found["residuals"] = pairs.residual_norms.tolist()
        found["products"] = pairs.num_products
    else:
        density = hesspipe.density(objective, num_probes=1, num_steps=NUM_STEPS, progress=True)
        found["products"] = density.num_products
        found["eigenvalues"] = density.nodes[0].tolist()
        found["residuals"] = density.couplings[0].abs().tolist()
        found["basis"] = density.provenance["density"].get("basis", "float32")
    found["seconds"] = time.perf_counter() - begin
    found["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def row(what: str, found: dict[str, Any]) -> str:
    """Format a line of the table."""
    values, residuals = found["eigenvalues"], found["residuals"]
    size = max(map(abs, values))
    if what == "eigenpairs":
        named = "ten largest eigenpairs"
        text = (
            f"{len(values)} pairs from {values[-1]:.2f} to {values[0]:.2f}, residuals of "
            f"{min(residuals) / size:.1e} to {max(residuals) / size:.1e} of the largest"
        )
    else:
        named = f"{NUM_STEPS} density steps"
        converged = sum(one <= TOLERANCE * size for one in residuals)
        text = (
            f"nodes from {values[0]:.2f} to {values[-1]:.2f}, {converged} of them converged to "
            f"{TOLERANCE:.0e}; basis in {found['basis']}"
        )
    return (
        f"| {named} | {found['P']:,} | {found['gib']:.1f} | {found['products']} | "
        f"{found['built']:.0f} | {found['seconds']:.0f} | {text} |"
    )


def main() -> None:
    """Compute one after the other, and write the table as each ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["eigenpairs", "density"])
    parser.add_argument("--width", type=int, default=5_000)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--gib", type=float, default=22.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--one", action="store_true", help="in this process, without a table")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.what[0], given.width, given.samples, given.gib)), flush=True)
        return
    title = TITLE.format(
        num_inputs=NUM_INPUTS, inner=", ".join([str(given.width)] * (NUM_INNER + 1)),
        num_classes=NUM_CLASSES, num_samples=given.samples, threads=given.threads, gib=given.gib,
        tolerance=TOLERANCE, num_steps=NUM_STEPS,
    )  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": str(given.threads), "MALLOC_MMAP_THRESHOLD_": "1000000",
    }  # fmt: skip
    rows = []
    for what in given.what:
        command = [sys.executable, __file__, what, "--one"]
        for name in ("width", "samples", "gib"):
            command += [f"--{name}", str(getattr(given, name))]
        done = subprocess.run(command, check=True, text=True,
                              stdout=subprocess.PIPE, env=environment)  # fmt: skip
        rows.append(row(what, json.loads(done.stdout)))
        print(rows[-1], flush=True)
        given.output.write_text(title + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
