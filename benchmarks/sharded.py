"""Measure the memory of each process of a sharded objective, and compare it with one process.

``python benchmarks/sharded.py`` writes benchmarks/sharded.md. Each number is measured in processes
of its own: the peak of their resident memory, less what importing torch and hesspipe takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_SAMPLES, WIDTH, NUM_INPUTS, NUM_OUTPUTS = 4, 1600, 100, 10
# P, processes; 0 processes: Objective in one. Vectors are in float32.
SIZE, COUNTS = 20_000_000, (0, 1, 2, 4)
NUM_STEPS = 8
TITLE = f"""# Sharded objectives

`python benchmarks/sharded.py`, float32, {NUM_SAMPLES} samples, square layers of {WIDTH} units with
`fully_shard` on each, {NUM_STEPS} Lanczos steps of one probe for H. Peak resident memory of the
largest process less that after the imports, in bytes a parameter of the whole model; one vector of
length P in one process takes 4.0. The model itself (its own shards, 4 / processes) is part of it.
`Objective` has `MALLOC_MMAP_THRESHOLD_=1000000`, so that glibc returns what is freed; a
`ShardedObjective` sets it itself.

| P | processes | built | after {NUM_STEPS} steps | a step more, in theory | s a step |
|---:|---:|---:|---:|---:|---:|
"""


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(size: int, count: int) -> dict[str, Any]:
    """Build an objective and run Lanczos in this process; return its peaks."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import hesspipe
    import hesspipe.curvature.spectra
    import hesspipe.sharded.objective

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if count:
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (count,))
    baseline = peak_bytes()
    inner = max(1, round((size - WIDTH * NUM_INPUTS) / (WIDTH * WIDTH)))
    widths = [NUM_INPUTS, *[WIDTH] * (inner + 1), NUM_OUTPUTS]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
        if count:
            fully_shard(layers[-2], mesh=mesh)
    model: nn.Module = nn.Sequential(*layers[:-1])
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(NUM_SAMPLES, NUM_INPUTS, generator=generator)
    targets = torch.randint(NUM_OUTPUTS, (NUM_SAMPLES,), generator=generator)
    if count:
        fully_shard(model, mesh=mesh)
        rank = dist.get_rank()
        own = slice(rank * NUM_SAMPLES // count, (rank + 1) * NUM_SAMPLES // count)
        objective: Any = hesspipe.ShardedObjective(
            model, nn.CrossEntropyLoss(), (inputs[own], targets[own]), dtype=torch.float32
        )
    else:
        objective = hesspipe.Objective(
            model, nn.CrossEntropyLoss(), (inputs, targets), dtype=torch.float32
        )
    built = peak_bytes() - baseline
    begin = time.perf_counter()
    found = hesspipe.density(objective, num_probes=1, num_steps=NUM_STEPS)
    return {
        "num_parameters": objective.num_parameters,
        "built": built,
        "density": peak_bytes() - baseline,
        "seconds": (time.perf_counter() - begin) / NUM_STEPS,
        "largest_node": float(found.nodes.max()),
    }


def run(size: int, count: int) -> dict[str, Any]:
    """Measure in new processes; return the largest peaks."""
    command = [sys.executable]
    if count:
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
    command += [__file__, "--one", str(size), str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if not count:
        environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
    # Processes may print on one line.
    found = [json.loads(text) for text in re.findall(r"\{[^{}]*\}", output.stdout)]
    return {name: max(one[name] for one in found) for name in found[0]}


def row(count: int, found: dict[str, Any]) -> str:
    """Format a line of the table."""
    size = found["num_parameters"]
    who = str(count) if count else "`Objective`"
    return (
        f"| {size:,} | {who} | {found['built'] / size:.1f} | {found['density'] / size:.1f} | "
        f"{4 / max(count, 1):.1f} | {found['seconds']:.1f} |"
    )


def main() -> None:
    """Measure all cases, or print one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS, help="of processes")
    parser.add_argument("--one", nargs=2, type=int, metavar=("P", "PROCESSES"))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)), flush=True)
        return
    rows = []
    for count in given.counts:
        rows.append(row(count, run(SIZE, count)))
        print(rows[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text(TITLE + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
