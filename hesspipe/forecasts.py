"""Sizes of networks, and bytes of the largest things that jobs hold, by arithmetic alone.

The functions that allocate compare these with what is available (`hesspipe.hardware.require`), and
the workflow does so before any job (`hesspipe.workflow.forecasts`), which is why nothing here loads
torch. They are lower bounds: what is refused would not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

_POOLING = 2  # stride and width of every max-pooling
_FLOAT64 = 8
# Vectors beside the basis and the results of a search, while a product is made and orthogonalized:
# theta, its gradient with the graph, the product, its parts, and what scaling and projection make
# of it.
VECTORS_OF_A_PRODUCT = 10
# The same where vectors are overwritten because the basis has no room for more: 7, of which theta
# is there already (measured for H of an MLP with 16 million parameters).
VECTORS_OF_A_LEAN_PRODUCT = 7
# Of a pair of two floats and four numbers in a list, before it is a row of a table.
_BYTES_PER_ROW = 200


@dataclass(frozen=True)
class NetworkSize:
    """What a network of the paper's kinds takes.

    Attributes
    ----------
    num_parameters : int
    num_activations : int
        Numbers that the layers put out for one sample.
    num_products : int
        Multiplications for one sample.
    """

    num_parameters: int
    num_activations: int
    num_products: int


def network_size(
    model: Mapping[str, Any], input_shape: Sequence[int], num_outputs: int
) -> NetworkSize | None:
    """Count without building the network; `hesspipe.networks.architectures` builds it.

    Parameters
    ----------
    model : mapping
        Its entry in config.yaml.
    input_shape : sequence of int
        Of one sample: features, or channels, height and width.
    num_outputs : int
        C.

    Returns
    -------
    NetworkSize or None
        None for a user's network.

    Examples
    --------
    >>> model = {"kind": "mlp", "hidden_widths": [30, 30]}
    >>> network_size(model, [100], 10).num_parameters
    4270
    """
    if model["kind"] == "mlp":
        return _dense_size([prod(input_shape), *model["hidden_widths"], num_outputs])
    if model["kind"] == "convnet":
        layers = [(channels, model["kernel_size"], 1, 0, True) for channels in model["channels"]]
        return _convolutional_size(layers, input_shape, [model["hidden_width"], num_outputs])
    if model["kind"] == "alexnet":
        numbered = enumerate(zip(model["channels"], model["kernel_sizes"], strict=True), 1)
        layers = [
            (
                channels,
                size,
                model["first_stride"] if number == 1 else 1,
                size // 2,
                number in model["pool_after"],
            )
            for number, (channels, size) in numbered
        ]
        return _convolutional_size(layers, input_shape, [num_outputs])
    return None


def _dense_size(widths: Sequence[int]) -> NetworkSize:
    weights = sum(before * after for before, after in pairwise(widths))
    # Each layer's outputs, and those of the activation after all but the last.
    activations = 2 * sum(widths[1:]) - widths[-1]
    return NetworkSize(weights + sum(widths[1:]), activations, weights)


def _convolutional_size(
    layers: Sequence[tuple[int, int, int, int, bool]], shape: Sequence[int], widths: Sequence[int]
) -> NetworkSize:
    """Add up convolutions (channels, kernel, stride, padding, pooling) and dense layers."""
    before, *sides = shape
    parameters = activations = products = 0
    for channels, kernel, stride, padding, is_pooled in layers:
        sides = [max(0, (side + 2 * padding - kernel) // stride + 1) for side in sides]
        weights = before * channels * kernel**2
        parameters += weights + channels
        products += weights * prod(sides)
        activations += 2 * channels * prod(sides)
        if is_pooled:
            sides = [side // _POOLING for side in sides]
            activations += channels * prod(sides)
        before = channels
    dense = _dense_size([before * prod(sides), *widths])
    return NetworkSize(
        parameters + dense.num_parameters,
        activations + dense.num_activations,
        products + dense.num_products,
    )


def clusters_bytes(num_points: int, num_features: int) -> int:
    """Points, their shuffled copy, and the standardized one."""
    return 3 * num_points * num_features * _FLOAT64


def training_bytes(size: NetworkSize, batch_size: int, element_bytes: int) -> int:
    """Parameters, gradients and a copy to write; a batch's activations, kept for the gradient."""
    return (3 * size.num_parameters + batch_size * size.num_activations) * element_bytes


def matrix_bytes(num_rows: int) -> int:
    """A symmetric matrix and the eigensolver's copy."""
    return 2 * num_rows**2 * _FLOAT64


def basis_bytes(num_vectors: int, num_parameters: int, element_bytes: int) -> int:
    """Vectors of a Krylov space, with two to work with."""
    return (num_vectors + 2) * num_parameters * element_bytes


def basis_capacity(num_wanted: int) -> int:
    """Vectors that a search for extreme eigenpairs keeps; see benchmarks/eigenpairs.md."""
    return 2 * num_wanted + 60


def least_basis_capacity(num_wanted: int) -> int:
    """Vectors with which the search still converges, where memory has no room for more.

    A restart keeps the wanted pairs and half of the others, and eight leave it four steps.
    """
    return num_wanted + 8


def vectors_of_search(num_wanted: int, basis_size: int) -> int:
    """Vectors of length P: the basis with the one that extends it, the pairs, a product's own."""
    return basis_size + 1 + num_wanted + VECTORS_OF_A_PRODUCT


def search_bytes(num_wanted: int, num_parameters: int, element_bytes: int) -> tuple[int, int]:
    """Bytes of a search for eigenpairs with the smallest basis, and with the one it prefers."""
    sizes = (least_basis_capacity(num_wanted), basis_capacity(num_wanted))
    least, preferred = (vectors_of_search(num_wanted, min(num_parameters, one)) for one in sizes)
    bytes_of_vector = num_parameters * element_bytes
    return least * bytes_of_vector, preferred * bytes_of_vector


def density_bytes(num_steps: int, num_parameters: int, element_bytes: int) -> tuple[int, int]:
    """Bytes of a density with a basis of which all but two vectors are halves, and a whole one."""
    bytes_of_vector = num_parameters * element_bytes
    halves = (num_steps + 2) * bytes_of_vector // 2
    least = halves + VECTORS_OF_A_LEAN_PRODUCT * bytes_of_vector
    return least, (num_steps + VECTORS_OF_A_PRODUCT) * bytes_of_vector


def plane_bytes(num_checkpoints: int, num_parameters: int, element_bytes: int) -> int:
    """Every checkpoint of two parts of a training, and the plane in float64."""
    return num_parameters * (num_checkpoints * element_bytes + 3 * _FLOAT64)


def spikes_bytes(num_draws: int) -> int:
    """A row of the table for each draw of a largest eigenvalue."""
    return num_draws * _BYTES_PER_ROW


def spiked_spectra_bytes(num_parameters: int, num_samples: int, num_repeats: int) -> int:
    """Entries, their covariance and the eigensolver's copy; the table of all spectra, twice."""
    entries = num_parameters * num_samples * _FLOAT64
    return entries + matrix_bytes(num_parameters) + 6 * num_repeats * num_parameters * _FLOAT64


def linear_model_bytes(num_features: int, num_samples: int, num_outputs: int) -> int:
    """The inputs, and the smaller of the Hessian and its Gram matrix."""
    inputs = num_features * num_samples * _FLOAT64
    return inputs + matrix_bytes(min(num_features * num_outputs, num_samples))


def curve_bytes(num_points: int, num_nodes: int) -> int:
    """Distances of a grid's points from one probe's nodes, and their exponentials."""
    return 2 * num_points * num_nodes * _FLOAT64
