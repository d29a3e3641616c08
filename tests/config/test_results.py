"""Keys of results and their paths: written out, inverse to each other, and refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesspipe.config.results import CONSTRAINTS, ResultKey, ResultKind, pattern
from hesspipe.curvature.matrix import Matrix

RUN = {"experiment": "mnist_lb", "seed": 1}
PATHS = {
    "results/datasets/mnist_1000.safetensors": ResultKey(ResultKind.DATASETS, "mnist_1000"),
    "results/checkpoints/mnist_lb/seed1/step0.safetensors": ResultKey(
        ResultKind.CHECKPOINTS, **RUN, step=0
    ),
    "results/histories/mnist_lb/seed1.parquet": ResultKey(ResultKind.HISTORIES, **RUN),
    "results/spectra/mnist_lb/seed1/step30_hessian.parquet": ResultKey(
        ResultKind.SPECTRA, **RUN, step=30, matrix=Matrix.HESSIAN
    ),
    "results/densities/mnist_lb/seed1/step30_ggn_block_2.parquet": ResultKey(
        ResultKind.DENSITIES, **RUN, step=30, matrix=Matrix.GGN, group="block_2"
    ),
    "results/eigenpairs/mnist_lb/seed1/step30_residual.parquet": ResultKey(
        ResultKind.EIGENPAIRS, **RUN, step=30, matrix=Matrix.RESIDUAL
    ),
    "results/outliers/mnist_lb/seed1.parquet": ResultKey(ResultKind.OUTLIERS, **RUN),
    "results/decompositions/mnist_lb/seed1.parquet": ResultKey(ResultKind.DECOMPOSITIONS, **RUN),
    "results/directions/mnist_lb/seed1/step30.parquet": ResultKey(
        ResultKind.DIRECTIONS, **RUN, step=30
    ),
    "results/landscape/mnist_lb/seed1/line.parquet": ResultKey(
        ResultKind.LANDSCAPE, **RUN, group="line"
    ),
    "results/landscape/mnist_lb/seed1/plane_to_seed0_points.parquet": ResultKey(
        ResultKind.LANDSCAPE, **RUN, group="plane_to_seed0_points"
    ),
    "results/landscape/mnist_lb/seed1/aligned_to_seed0.safetensors": ResultKey(
        ResultKind.LANDSCAPE, **RUN, group="aligned_to_seed0"
    ),
    "results/random_matrices/spikes/positions.parquet": ResultKey(
        ResultKind.RANDOM_MATRICES, "spikes", group="positions"
    ),
    "results/curves/layers.parquet": ResultKey(ResultKind.CURVES, "layers"),
}
PARTS = {
    ResultKind.DATASETS: (),
    ResultKind.CHECKPOINTS: ("seed", "step"),
    ResultKind.HISTORIES: ("seed",),
    ResultKind.SPECTRA: ("seed", "step", "matrix"),
    ResultKind.DENSITIES: ("seed", "step", "matrix", "group"),
    ResultKind.EIGENPAIRS: ("seed", "step", "matrix"),
    ResultKind.OUTLIERS: ("seed",),
    ResultKind.DECOMPOSITIONS: ("seed",),
    ResultKind.DIRECTIONS: ("seed", "step"),
    ResultKind.LANDSCAPE: ("seed", "group"),
    ResultKind.RANDOM_MATRICES: ("group",),
    ResultKind.CURVES: (),
}
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
VALUES = {
    "seed": st.integers(0, 10**6),
    "step": st.integers(0, 10**9),
    "matrix": st.sampled_from(Matrix),
    "group": NAMES,
}
KEYS = st.sampled_from(ResultKind).flatmap(
    lambda kind: st.builds(
        ResultKey, st.just(kind), NAMES, **{part: VALUES[part] for part in PARTS[kind]}
    )
)


@pytest.mark.parametrize(("path", "key"), PATHS.items())
def test_path_is_where_the_result_is_stored(path: str, key: ResultKey) -> None:
    assert key.path == path
    assert ResultKey.from_path(path) == key


def test_every_kind_has_a_path() -> None:
    assert {key.kind for key in PATHS.values()} == set(ResultKind) == set(PARTS)


@given(KEYS)
def test_from_path_is_the_inverse_of_path(key: ResultKey) -> None:
    assert ResultKey.from_path(key.path) == key


@given(KEYS)
def test_pattern_matches_the_paths_of_its_kind(key: ResultKey) -> None:
    parts = re.split(r"\{(\w+)\}", pattern(key.kind, key.group or "{group}"))
    expression = "".join(
        f"({CONSTRAINTS[part]})" if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    )
    assert re.fullmatch(expression, key.path)


@given(KEYS, KEYS)
def test_different_keys_have_different_paths(key: ResultKey, other: ResultKey) -> None:
    assert (key == other) == (key.path == other.path)


@pytest.mark.parametrize(
    "path",
    [
        "results/spectra/mnist_lb/seed01/step30_hessian.parquet",
        "results/spectra/mnist_lb/seed1/step30_fisher.parquet",
        "results/spectra/mnist_lb/seed1/step30_hessian.csv",
        "results/landscape/mnist_lb/seed1/line.safetensors",
        "results/landscape/mnist_lb/seed1/aligned_to_seed0.parquet",
        "results/figures/fig1.parquet",
        "figures/fig1.pdf",
        "",
    ],
)
def test_from_path_refuses_what_is_no_result(path: str) -> None:
    with pytest.raises(ValueError, match="path must be that of a result"):
        ResultKey.from_path(path)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (ResultKind.SPECTRA, {"seed": 0, "step": 1}),
        (ResultKind.HISTORIES, {"seed": 0, "step": 1}),
        (ResultKind.CURVES, {"group": "network"}),
    ],
)
def test_key_refuses_parts_of_another_kind(kind: ResultKind, parts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"parts of a key of {kind} must be"):
        ResultKey(kind, "mnist_lb", **parts)
