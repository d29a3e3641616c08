"""What a monitor costs on the transformer of examples/, and how far its values are right.

python benchmarks/monitor.py [seed [steps]]     (three minutes of processor time for 800 steps)

The transformer of examples/transformer is trained as its configuration says, with 800 steps instead
of 200, and all monitors of `SETTINGS` are called in turns after each step. A training is the same
to the last bit with and without monitors, so that each of them sees what it would see alone. Times
are processor times of this process, and the clock of the budget is one that stands still for the
other monitors. The record at step 0 starts from nothing and is no part of the shares.

Each value is compared with `hesspipe.eigenpairs` at the same parameters, which is asked for a
tolerance of 1e-5. The table has the errors by the status of the values.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hesspipe
import hesspipe.monitor.budget

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "transformer"))

BATCH_SIZE = 16
SETTINGS: dict[str, dict[str, Any]] = {
    "largest": {"num_smallest": 0},
    "largest, verify_every=5": {"num_smallest": 0, "verify_every": 5},
    "largest, budget=0.05": {"num_smallest": 0, "budget": 0.05},
    "both ends": {},
    "both ends, budget=0.05": {"budget": 0.05},
}


STATUS = ("certified", "estimated", "open")


class Watched:
    """A monitor, its seconds at each record, and its errors."""

    # Processor seconds of all monitors, and of those other than the one that is called.
    all_seconds = elsewhere = 0.0

    def __init__(self, name: str, objective: hesspipe.Objective, model: nn.Module, opt: Any):
        self.name, self.monitor = name, hesspipe.Monitor(objective, model, opt, **SETTINGS[name])
        self.seconds: list[float] = []
        self.total = 0.0
        self.errors: dict[tuple[str, str], list[float]] = {}

    def step(self, number: int) -> None:
        """Call the monitor, with a clock of the training and of its own."""
        start = time.process_time()
        Watched.elsewhere = Watched.all_seconds - self.total
        self.monitor.record(0) if number == 0 else self.monitor.step()
        spent = time.process_time() - start
        self.total += spent
        Watched.all_seconds += spent
        if number > 0:
            self.seconds.append(spent)

    def compare(self, number: int, exact: dict[str, float]) -> None:
        """Note the relative errors of a record."""
        for row in self.monitor.table.query("step == @number").itertuples():
            error = abs(row.eigenvalue / exact[row.end] - 1)
            self.errors.setdefault((row.end, row.status), []).append(error)


def train(seed: int, num_steps: int) -> None:
    """Train once, and print a row for each monitor."""
    from network import Transformer
    from text import passages

    torch.manual_seed(seed)
    model = Transformer(length=32, width=160, num_heads=4, num_blocks=4)
    inputs, targets, *_ = passages(num_train=64, num_test=1, length=32, seed=0)
    loss_fn = nn.CrossEntropyLoss()
    data = inputs[:1], targets[:1]
    objective = hesspipe.Objective(model, loss_fn, data, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    watched = [Watched(name, objective, model, optimizer) for name in SETTINGS]
    clock = types.SimpleNamespace(perf_counter=lambda: time.process_time() - Watched.elsewhere)
    hesspipe.monitor.budget.time = clock  # type: ignore[assignment]
    orders = itertools.chain.from_iterable(
        torch.randperm(64).split(BATCH_SIZE) for _ in range(10**6)
    )
    training: list[float] = []
    for step in range(num_steps + 1):
        start = time.process_time()
        if step > 0:
            chosen = next(orders)
            optimizer.zero_grad()
            loss_fn(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
            training.append(time.process_time() - start)
        for each in watched:
            each.step(step)
        if step and step % hesspipe.monitor.monitor.EVERY == 0:
            compare(objective, model, watched, step)
            print(f"up to step {step}:", flush=True)
            for each in watched:
                print(row_of(each, training), flush=True)


def compare(
    objective: hesspipe.Objective, model: nn.Module, watched: list[Watched], step: int
) -> None:
    """Compute the ends, and compare them with all records."""
    start = time.process_time()
    theta = torch.cat([part.detach().flatten() for part in model.parameters()])
    here = objective.at(theta)
    pairs = hesspipe.eigenpairs(here, num_smallest=1, num_largest=1, tolerance=1e-5, progress=False)
    exact = dict(zip(("smallest", "largest"), pairs.eigenvalues.tolist(), strict=True))
    for each in watched:
        each.compare(step, exact)
    Watched.all_seconds += time.process_time() - start


def row_of(watched: Watched, training: list[float]) -> str:
    """Make a row: shares of windows of `every` steps, products, and errors."""
    every, table = watched.monitor.every, watched.monitor.table.query("step > 0")
    windows = range(0, len(training), every)
    shares = [
        100 * sum(watched.seconds[at : at + every]) / sum(training[at : at + every])
        for at in windows
    ]
    whole = 100 * sum(watched.seconds) / sum(training)
    late = len(training) // 2
    second = 100 * sum(watched.seconds[late:]) / sum(training[late:])
    products = table.groupby("step")["num_products"].first()
    cells = [
        watched.name,
        f"{whole:.1f} % ({min(shares):.1f} to {max(shares):.1f})",
        f"{second:.1f} %",
        f"{len(products)} of {len(windows)}",
        f"{statistics.mean(products):.1f}" if len(products) else "-",
    ]
    for end in ("largest", "smallest"):
        for status in STATUS:
            found = watched.errors.get((end, status), [])
            cells.append(f"{len(found)}, {max(found):.0e}" if found else "-")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = [int(each) for each in sys.argv[1:]]
    seed, num_steps = (*arguments, *(0, 800)[len(arguments) :])
    ends = [f"{end}: {status}, worst error" for end in ("largest", "smallest") for status in STATUS]
    print(f"| monitor | share (windows) | second half | records | products | {' | '.join(ends)} |")
    train(seed, num_steps)
