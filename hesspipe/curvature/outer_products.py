"""A^T A of weights whose gradient is a sum of outer products.

A weight W that multiplies vectors a_t (the inputs of a Linear layer, the patches of a convolution)
at positions t has in sample n, for direction c, the gradient

    dW[n, c] = sum_t g[n, c, t] a[n, t]^T,      g = the slope of the direction in z_t = W a_t

so that two of them have the inner product

    <dW[n, c], dW[m, d]> = sum_t sum_s <g[n, c, t], g[m, d, s]> <a[n, t], a[m, s]>

which needs slopes and inputs only. dW is not formed where this is cheaper: with 10 classes, in a
layer of 512 x 4,608 weights at one position, 2.4 million multiply-adds for each pair become 500.

A parameter whose gradient is not what its calls say (`hesspipe.curvature.weight_uses`), because it
is used in another way, too, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.directions import Directions
from hesspipe.curvature.products import pull_back_all
from hesspipe.curvature.weight_uses import Recorder, Use
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective
from hesspipe.objective.pytrees import Fields
from hesspipe.seeding import probe
from hesspipe.tolerances import agrees

# Rows of A^T A that are updated at once.
_ROWS = 512


@dataclass(frozen=True)
class Weight:
    """A weight whose gradient is a sum of outer products, and how its part of A^T A is formed.

    Attributes
    ----------
    name : str
    has_rows : bool
        Whether dW is formed, and not the products of slopes and of inputs.
    num_bytes : int
        Of what is held for it, for all samples.
    """

    name: str
    has_rows: bool
    num_bytes: int


def find_weights(objective: Objective, num_directions: int, budget: int) -> list[Weight]:
    """Find the weights whose gradient is a sum of outer products.

    What the calls say is compared with the gradient, for the first sample of each batch in a random
    direction. Whatever goes wrong in a network that was not written for this means that it has no
    such weights.

    Parameters
    ----------
    objective : Objective
    num_directions : int
        r.
    budget : int
        Most bytes that one weight may take, for all samples.

    Returns
    -------
    list of Weight
        In the order of theta.
    """
    costs: dict[str, list[float]] = {}
    wrong: set[str] = set()
    try:
        for batch in objective.batches:
            confirmed, others = _confirmed_uses(objective, batch.inputs[:1])
            wrong |= others
            for name, uses in confirmed.items():
                sums = costs.setdefault(name, [0.0] * 4)
                for index, cost in enumerate(_costs(uses, num_directions)):
                    sums[index] += batch.num_samples * cost
    except Exception:  # of any kind
        return []
    weights = []
    for name in (name for name in objective.names if name in costs and name not in wrong):
        products, rows, products_bytes, rows_bytes = costs[name]
        ways = [(products, False, products_bytes), (rows, True, rows_bytes)]
        fitting = [way for way in ways if way[0] < math.inf and way[2] <= budget]
        if fitting:
            _, has_rows, size = min(fitting)
            weights.append(Weight(name, has_rows, int(size)))
    return weights


def add_gram(
    total: Tensor,
    objective: Objective,
    directions: Directions,
    weights: list[Weight],
    bar: tqdm[Any],
) -> None:
    """Add the part of some weights to the lower triangle of A^T A.

    Parameters
    ----------
    total : Tensor, shape (N r, N r)
    objective : Objective
    directions : Directions
    weights : list of Weight
        What they hold is in memory at once.
    bar : tqdm
        Advances by N.
    """
    num_columns, num_directions = directions.num_columns, directions.values.shape[2]
    sizes = {
        name: shape.numel() for name, shape in zip(objective.names, objective.shapes, strict=True)
    }
    rows = {
        weight.name: total.new_zeros(num_columns, sizes[weight.name])
        for weight in weights
        if weight.has_rows
    }
    factors: dict[str, dict[int, tuple[Tensor, Tensor]]] = {
        weight.name: {} for weight in weights if not weight.has_rows
    }
    names = {weight.name for weight in weights}
    for number, (batch, sample) in enumerate(_samples(objective)):
        vectors = directions.values[number].mT  # (r, C)
        with objective.explained(batch):
            slopes_of = _slopes(objective, batch.inputs[sample : sample + 1], vectors, names)
        for name, uses in slopes_of.items():
            if name in rows:
                place = slice(number * num_directions, (number + 1) * num_directions)
                rows[name][place] = sum(use.gradients(slopes) for use, slopes in uses)
            else:
                factors[name][number] = (
                    torch.cat([use.inputs[0] for use, _ in uses]),  # (T, K)
                    torch.cat([use.arrange(slopes)[:, 0] for use, slopes in uses], dim=1),
                )
        bar.update()
    while rows:
        add_squares_of_rows(total, rows.popitem()[1])
    while factors:
        held = factors.popitem()[1]
        if held:
            _add_products(total, *_stacked(held, len(directions.values)))


def add_squares_of_rows(total: Tensor, rows: Tensor) -> None:
    """Add rows rows^T to the lower triangle of total, by blocks of rows.

    Parameters
    ----------
    total : Tensor, shape (n, n)
    rows : Tensor, shape (n, K)
    """
    for start in range(0, len(rows), _ROWS):
        stop = min(start + _ROWS, len(rows))
        total[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].mT)


def _samples(objective: Objective) -> Iterator[tuple[Batch, int]]:
    """All samples: their batch, and their place in it."""
    for batch in objective.batches:
        for sample in range(len(batch.inputs)):
            yield batch, sample


def _slopes(
    objective: Objective, inputs: Tensor | Fields, vectors: Tensor, names: set[str]
) -> dict[str, list[tuple[Use, Tensor]]]:
    """Slopes of the outputs of a sample in what weights compute, by weight."""
    with Recorder(objective, objective.theta, names) as recorder:
        outputs = objective.outputs(objective.theta, inputs).squeeze(0)
    uses = recorder.uses
    pulled = pull_back_all(outputs, [use.delta for use in uses], vectors)
    found: dict[str, list[tuple[Use, Tensor]]] = {}
    for use, slopes in zip(uses, pulled, strict=True):
        found.setdefault(use.name, []).append((use, slopes))
    return found


def _confirmed_uses(
    objective: Objective, inputs: Tensor | Fields
) -> tuple[dict[str, list[Use]], set[str]]:
    """The uses of weights of which they make the whole gradient, and the names of the others."""
    theta = objective.theta.clone().requires_grad_()
    with Recorder(objective, theta, set(objective.names)) as recorder:
        outputs = objective.outputs(theta, inputs)
    uses = recorder.uses
    gradient, *slopes = torch.autograd.grad(
        outputs, [theta, *(use.delta for use in uses)], probe(outputs), materialize_grads=True
    )
    parts = gradient.split([shape.numel() for shape in objective.shapes])
    confirmed: dict[str, list[Use]] = {}
    wrong = set()
    for name, expected in zip(objective.names, parts, strict=True):
        mine = [pair for pair in zip(uses, slopes, strict=True) if pair[0].name == name]
        if not mine:
            wrong.add(name)
            continue
        found = torch.stack([use.gradients(slope.unsqueeze(0))[0] for use, slope in mine]).sum(0)
        if agrees(found, expected, expected.norm()):
            confirmed[name] = [use for use, _ in mine]
        else:
            wrong.add(name)
    return confirmed, wrong


def _costs(uses: list[Use], num_directions: int) -> tuple[float, float, int, int]:
    """Cost of a sample by products and by rows: multiply-adds for a pair of columns; bytes."""
    groups, _, num_inputs = uses[0].inputs.shape
    num_units = uses[0].num_units
    length = sum(use.inputs.shape[1] for use in uses)
    itemsize = uses[0].inputs.element_size()
    by_pair = length**2 * (num_inputs + num_directions * num_units) / num_directions**2
    return (
        by_pair + length * num_units if groups == 1 else float("inf"),
        groups * num_inputs * num_units,
        length * (num_inputs + num_directions * num_units) * itemsize,
        num_directions * groups * num_inputs * num_units * itemsize,
    )


def _stacked(held: dict[int, tuple[Tensor, Tensor]], num_data: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, T, K) and slopes (N, T, r, U) of all samples; zeros where there are fewer."""
    some_inputs, some_slopes = next(iter(held.values()))
    length = max(len(inputs) for inputs, _ in held.values())
    num_directions, _, num_units = some_slopes.shape
    inputs = some_inputs.new_zeros(num_data, length, some_inputs.shape[1])
    slopes = some_inputs.new_zeros(num_data, length, num_directions, num_units)
    for number, (own_inputs, own_slopes) in held.items():
        inputs[number, : len(own_inputs)] = own_inputs
        slopes[number, : len(own_inputs)] = own_slopes.transpose(0, 1)
    return inputs, slopes


def _add_products(total: Tensor, inputs: Tensor, slopes: Tensor) -> None:
    """Add sum_ts <g, g'> <a, a'> to the lower triangle, one sample against those up to it."""
    _, length, num_directions, num_units = slopes.shape
    for number in range(len(inputs)):
        earlier = slice(0, number + 1)
        similar = inputs[number] @ inputs[earlier].flatten(0, 1).mT  # (T, m T)
        similar = similar.view(length, -1, length).transpose(0, 1)  # (m, T, T)
        moved = (similar @ slopes[earlier].flatten(2)).view(-1, length, num_directions, num_units)
        others = moved.transpose(1, 2).flatten(2).flatten(0, 1)  # (m r, T U)
        own = slopes[number].transpose(0, 1).flatten(1)  # (r, T U)
        start, stop = number * num_directions, (number + 1) * num_directions
        total[start:stop, :stop] += own @ others.mT
