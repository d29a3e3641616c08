"""What a monitor costs on the transformer of examples/, and how far its values are right.

python benchmarks/monitor.py [steps [setting]]     (half an hour on one core for 1,000 steps)

The transformer of examples/transformer is trained as its configuration says, with 1,000 steps
instead of 200. For each setting below, the same training runs once with a monitor; the share is the
processor time of the records, less that at step 0, over that of the steps between them, so that
other jobs on the machine slow both. Values at some records are compared with those of
`hesspipe.eigenpairs` at the same parameters.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hesspipe

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "transformer"))

# Passages in a step of the training, and of the monitor; smallest, largest; other arguments.
SETTINGS: list[tuple[int, int, int, int, dict[str, Any]]] = [
    (16, 1, 0, 1, {}),
    (16, 1, 0, 1, {"verify_every": 5}),
    (16, 1, 0, 1, {"budget": 0.05}),
    (16, 1, 1, 1, {}),
    (64, 1, 0, 1, {}),
    (64, 4, 0, 1, {}),
]
COMPARED_EVERY = 5  # records: `eigenpairs` takes up to a minute each


def run(setting: tuple[int, int, int, int, dict[str, Any]], num_steps: int) -> None:
    """Train once with a monitor, and print one row."""
    from network import Transformer
    from text import passages

    batch_size, num_watched, num_smallest, num_largest, options = setting
    torch.manual_seed(0)
    model = Transformer(length=32, width=160, num_heads=4, num_blocks=4)
    inputs, targets, *_ = passages(num_train=64, num_test=1, length=32, seed=0)
    loss_fn = nn.CrossEntropyLoss()
    data = inputs[:num_watched], targets[:num_watched]
    objective = hesspipe.Objective(model, loss_fn, data, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    numbers = {"num_smallest": num_smallest, "num_largest": num_largest}
    monitor = hesspipe.Monitor(objective, model, optimizer, **numbers, **options)
    monitor.record(0)  # not part of the share: it starts from nothing
    seconds_training = seconds_monitor = 0.0
    products, errors = [], {"smallest": [], "largest": []}
    orders = itertools.chain.from_iterable(
        torch.randperm(64).split(batch_size) for _ in range(10**6)
    )
    for step in range(1, num_steps + 1):
        start = time.process_time()
        chosen = next(orders)
        optimizer.zero_grad()
        loss_fn(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
        middle = time.process_time()
        monitor.step()
        seconds_training += middle - start
        seconds_monitor += time.process_time() - middle
        if step % monitor.every == 0:
            rows = monitor.table.query("step == @step")
            products += [int(number) for number in rows["num_products"][:1]]
            if step // monitor.every % COMPARED_EVERY == 0:
                compare(objective, model, rows, errors)
    shares = f"{100 * seconds_monitor / seconds_training:.1f} %"
    worst = [f"{max(found):.0e}" if found else "-" for found in errors.values()]
    converged = monitor.table.query("step > 0").groupby("end")["is_converged"].mean()
    print(
        f"| {batch_size} | {num_watched} | {num_smallest} + {num_largest}"
        f"{''.join(f', {key} {value}' for key, value in options.items())} | {shares} "
        f"| {statistics.mean(products):.1f} | {worst[1]} | {worst[0]} "
        f"| {100 * converged['largest']:.0f} % | "
        + (f"{100 * converged['smallest']:.0f} % |" if num_smallest else "- |"),
        flush=True,
    )


def compare(objective: hesspipe.Objective, model: nn.Module, rows, errors) -> None:  # type: ignore[no-untyped-def]
    """Add the relative errors of what converged in one record."""
    theta = torch.cat([part.detach().flatten() for part in model.parameters()])
    for end, found in errors.items():
        row = rows[rows["end"] == end]
        if len(row) and row["is_converged"].iloc[0]:
            numbers = {"num_smallest": int(end == "smallest"), "num_largest": int(end == "largest")}
            exact = hesspipe.eigenpairs(objective.at(theta), tolerance=1e-4, **numbers)
            right = float(exact.eigenvalues)
            found.append(abs(float(row["eigenvalue"].iloc[0]) / right - 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| step | monitor | ends | share | products | error, largest | smallest | converged | |")
    chosen = [SETTINGS[int(sys.argv[2])]] if len(sys.argv) > 2 else SETTINGS
    for setting in chosen:
        run(setting, num_steps)
