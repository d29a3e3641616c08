"""Every public class of results, found from the annotations of public functions, and examples."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch

import hesspipe
from hesspipe.landscape import barriers, paths
from hesspipe.landscape.barriers import find_barrier
from hesspipe.landscape.losses import LineLosses, PlaneLosses
from hesspipe.linalg.counts import Count
from hesspipe.linalg.intervals import Curve, Distribution, Moment
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.linalg.trace import Estimate, NormEstimates


def public_functions() -> Iterator[Any]:
    """Functions and classes of the package, and the functions of its landscape."""
    yield from (getattr(hesspipe, name) for name in hesspipe.__all__)
    for module in (paths, barriers):
        yield from own_functions(module)


def own_functions(module: ModuleType) -> Iterator[Any]:
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_":
            yield value


def classes_in(annotation: Any, owner: Any) -> Iterator[type]:
    """Classes of hesspipe in a return annotation, also in unions and tuples."""
    if isinstance(annotation, str):
        namespace = vars(inspect.getmodule(owner)) | {"Axes": None}
        try:
            annotation = eval(annotation, dict(namespace))
        except NameError:  # only for type checkers: of matplotlib, pandas, ...
            return
    for part in typing.get_args(annotation):
        yield from classes_in(part, owner)
    if inspect.isclass(annotation) and annotation.__module__.startswith("hesspipe."):
        yield annotation


# What functions return that is no result: inputs of further computations.
NO_RESULTS = {"Objective", "Plane", "Sample", "Matrix", "DiagonalBlock", "CurvatureOperator"}


def result_classes() -> set[type]:
    """Classes that public functions return, and then those that public methods of these return."""
    found: set[type] = {hesspipe.Monitor}
    waiting = [each for each in public_functions() if inspect.isfunction(each)]
    while waiting:
        function = waiting.pop()
        for kind in classes_in(inspect.signature(function).return_annotation, function):
            if kind in found or kind.__name__ in NO_RESULTS:
                continue
            found.add(kind)
            for name, value in vars(kind).items():
                method = value.fget if isinstance(value, property) else value
                method = getattr(method, "func", method)  # a cached property
                if name[0] != "_" and inspect.isfunction(method):
                    waiting.append(method)
    return found


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def norms(trace: float, error: float, squares: float = 2.0) -> NormEstimates:
    return NormEstimates(Estimate(trace, error), Estimate(squares, squares / 9), 1.0, 30, "ggn", 7)


def curve(*values: float) -> Curve:
    grid = torch.linspace(-1, 1, len(values), dtype=torch.float64)
    heights = vector(*values)
    return Curve(heights / 2, 2 * heights, heights, heights / 9, 0.99, grid, 0.1, "hessian", 40)


def spectrum(*values: float) -> Spectrum:
    found = vector(*values)
    num_negative, num_zero = int((found < 0).sum()), int((found == 0).sum())
    bound = 1e-16 * float(found.abs().max())
    return Spectrum(found, num_negative, num_zero, len(found) - num_negative - num_zero, bound,
                    bound, "operator", "dense", "ldl")  # fmt: skip


def pairs(*values: float, num_smallest: int = 1) -> Eigenpairs:
    found = vector(*sorted(values))
    return Eigenpairs(found, torch.eye(9, dtype=torch.float64)[:, : len(found)],
                      found.abs() * 1e-4, 12, "hessian", num_smallest,
                      len(found) - num_smallest)  # fmt: skip


def line(*losses: float, has_test: bool = True) -> LineLosses:
    other = [2 * loss for loss in losses] if has_test else [None] * len(losses)
    places = np.linspace(-0.5, 1.5, len(losses))
    table = pd.DataFrame({"coefficient": places, "train_loss": losses, "train_accuracy": 0.5,
                          "test_loss": other, "test_accuracy": None})  # fmt: skip
    return LineLosses(table)


def plane(*losses: float) -> PlaneLosses:
    side = math.ceil(len(losses) ** 0.5)
    first, second = np.meshgrid(np.arange(float(side)), np.arange(float(side)))
    number = len(losses)
    return PlaneLosses(
        pd.DataFrame({"first": first.ravel()[:number], "second": second.ravel()[:number],
                      "train_loss": losses})
    )  # fmt: skip


def monitor(every: int = 1) -> hesspipe.Monitor:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    inputs, targets = torch.randn(8, 2), torch.arange(8) % 2
    loss = torch.nn.CrossEntropyLoss()
    objective = hesspipe.Objective(model, loss, (inputs, targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    found = hesspipe.Monitor(objective, model, optimizer, every=every, num_largest=2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
        found.step()
    return found


def layers() -> hesspipe.LayerSpectra:
    results = {"first": spectrum(-2.0, 0.0, 3.0), "second": pairs(-1.0, 4.0)}
    return hesspipe.LayerSpectra(
        "hessian", {name: [f"{name}.weight"] for name in results}, dict.fromkeys(results, 9),
        results, {},
    )  # fmt: skip


def density(*values: float) -> hesspipe.Density:
    return hesspipe.density(torch.diag(vector(*values)), num_steps=min(8, len(set(values))))


def examples() -> dict[str, list[Any]]:
    """Results of each class, ordinary and extreme: zeros, one value, one sign, tiny and huge."""
    zeros, tiny, huge = (0.0, 0.0, 0.0), (1e-300, 2e-300), (1.0, 1e300)
    lines = [[1.0, 3.0, 2.0, 4.0, 1.0], [0.0] * 5, [1e-300] * 5, [1.0, 1e3, 1e300, 1.0, 2.0],
             [-3.0, -1.0, -2.0, -5.0, -1.0], [1e-300, 1e-200, 1e-5, 1.0, 1e-3]]  # fmt: skip
    return {
        "Spectrum": [spectrum(-2.0, 0.0, 3.0), spectrum(*zeros), spectrum(-1.0), spectrum(5.0),
                     spectrum(-3.0, -1.0), spectrum(*tiny), spectrum(*huge)],
        "Eigenpairs": [pairs(-1.0, 2.0, 3.0), pairs(*zeros), pairs(-2.0), pairs(-2.0, -1.0),
                       pairs(*tiny, num_smallest=0), pairs(*huge, num_smallest=0)],
        "Density": [density(*range(1, 40)), density(*zeros), density(-1.0, -3.0),
                    density(2.0)],
        "LayerSpectra": [layers()],
        "NormEstimates": [norms(1.0, 0.1), norms(0.0, 0.0, 0.0), norms(-1e300, 1e299),
                          norms(1e-300, 1e-301, 1e-300), norms(-5.0, 9.0)],
        "Estimate": [Estimate(1.0, 0.2), Estimate(0.0, 0.0), Estimate(-1e300, 1e299),
                     Estimate(1e-300, 1e-301)],
        "Count": [Count(2, 9, 4.5, 0.999), Count(0, 0, 0.0, 0.9), Count(7, 7, 7.0, 0.9),
                  Count(0, 10**12, 5e5, 0.9)],
        "Moment": [Moment(1.0, 2.0, 1.5, 0.1, 0.99), Moment(0.0, 0.0, 0.0, float("nan"), 0.9),
                   Moment(-1e300, 1e300, 0.0, 1e299, 0.9),
                   Moment(1e-300, 2e-300, 1e-300, 0.0, 0.9)],
        "Curve": [curve(1.0, 3.0, 2.0), curve(*zeros), curve(1e-300, 1e-299), curve(1e300, 1e290)],
        "Distribution": [
            Distribution(vector(0.1, 0.2), vector(0.5, 0.9), vector(0.3, 0.4), 0.9, vector(-1, 2)),
            Distribution(vector(0.0), vector(1.0), vector(0.5), 0.9, vector(0.0)),
            Distribution(vector(0, 0), vector(1, 1), vector(0.5, 1), 0.9, vector(1e-300, 1e300)),
        ],
        "OutlierCount": [hesspipe.count_outliers(values, "ratio") for values in
                         ([0.5, 1.0, 9.0], [0.0, 0.0], [], [-2.0, -1.0], [1e-300, 1e300])]
                        + [hesspipe.count_outliers(spectrum(1.0, 2.0, 9.0))],
        "Barrier": [find_barrier(np.linspace(-0.5, 1.5, 5), losses) for losses in lines],
        "LineLosses": [*(line(*losses) for losses in lines), line(1.0, 2.0, has_test=False)],
        "PlaneLosses": [plane(*range(1, 17)), plane(*[0.0] * 9), plane(2.0), plane(1.0, 2.0),
                        plane(*np.geomspace(1e-300, 1.0, 16)),
                        plane(*np.geomspace(1.0, 1e300, 9)), plane(*range(-12, 4))],
        "Monitor": [monitor(), monitor(every=9)],
    }  # fmt: skip
