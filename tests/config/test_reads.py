"""The results that entries read and produce, for the paper's configuration and variants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hesspipe.config.loading import load_config
from hesspipe.config.producers import inputs_of
from hesspipe.config.readers import Reader
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.schema import Config
from hesspipe.curvature.matrix import Matrix

CONFIG = load_config(Path(__file__).parents[2] / "config.yaml")
READERS: dict[str, Reader] = dict(CONFIG.readers())
FIGURE_1 = "clusters_gd_relu_k10_cov1"


def paths_of(reader: str) -> list[str]:
    return [key.path.removeprefix("results/") for key in READERS[reader].reads(CONFIG)]


def inputs(path: str, config: Config = CONFIG) -> dict[str, Any]:
    """Return the paths that the job of a path reads."""
    found = inputs_of(ResultKey.from_path(f"results/{path}"), config)
    return {
        name: [key.path.removeprefix("results/") for key in keys]
        if isinstance(keys, list)
        else keys.path.removeprefix("results/")
        for name, keys in found.items()
    }


@pytest.mark.parametrize("name", READERS)
def test_every_result_that_is_read_can_be_computed(name: str) -> None:
    keys = READERS[name].reads(CONFIG)
    assert keys
    assert len(set(keys)) == len(keys)
    assert set(keys) <= CONFIG.results()


def test_every_job_reads_what_other_jobs_compute() -> None:
    results = CONFIG.results()
    for key in results:
        for keys in inputs_of(key, CONFIG).values():
            assert set(keys if isinstance(keys, list) else [keys]) <= results


def test_jobs_read_no_results_of_their_own_in_a_circle() -> None:
    def depth(key: ResultKey, passed: tuple[ResultKey, ...] = ()) -> int:
        assert key not in passed
        below = [
            one
            for keys in inputs_of(key, CONFIG).values()
            for one in (keys if isinstance(keys, list) else [keys])
        ]
        return 1 + max((depth(one, (*passed, key)) for one in below), default=0)

    assert max(depth(key) for key in CONFIG.results()) <= 7


def test_what_is_always_computed_is_a_part_of_what_can_be() -> None:
    for name, plan in CONFIG.experiments.items():
        assert set(plan.computes(name)) <= set(plan.produces(name, CONFIG))


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("figures.fig1", [f"spectra/{FIGURE_1}/seed0/step0_hessian.parquet",
                          f"spectra/{FIGURE_1}/seed0/step5000_hessian.parquet"]),
        ("figures.fig4", [f"spectra/{name}/seed{seed}/step3000_hessian.parquet"
                          for name in ("mnist_lb", "mnist_sb") for seed in (0, 1)]),
        ("figures.fig8", ["histories/cifar10_basins_lb/seed0.parquet",
                          "histories/cifar10_basins_sb/seed0.parquet"]),
        ("figures.fig9_mnist", ["landscape/mnist_basins_sb/seed0/line.parquet"]),
        ("figures.plane", ["landscape/cifar10_basins_sb/seed0/plane_to_seed1.parquet",
                           "landscape/cifar10_basins_sb/seed0/plane_to_seed1_points.parquet"]),
        ("figures.decomposition", [f"decompositions/{FIGURE_1}/seed0.parquet"]),
        ("tables.decomposition", [f"decompositions/{FIGURE_1}/seed0.parquet"]),
        ("figures.gallery_outliers", [f"spectra/{FIGURE_1}/seed0/step5000_hessian.parquet",
                                      f"outliers/{FIGURE_1}/seed0.parquet"]),
        ("figures.theorem1", ["random_matrices/spikes/positions.parquet",
                              "random_matrices/spikes/fluctuations.parquet"]),
        ("tables.barriers", [
            "landscape/cifar10_basins_sb/seed0/line.parquet",
            "landscape/cifar10_basins_sb/seed1/line.parquet",
            "landscape/cifar10_basins_sb/seed0/line_to_seed1.parquet",
            "landscape/cifar10_basins_sb/seed0/line_to_seed1_aligned.parquet",
        ]),
        ("tables.sharpness", ["eigenpairs/cifar10_basins_lb/seed0/step25000_hessian.parquet",
                              "eigenpairs/cifar10_basins_sb/seed0/step25000_hessian.parquet"]),
        ("claims.residual_is_small_for_clusters", [
            f"spectra/{FIGURE_1}/seed0/step5000_hessian.parquet",
            f"spectra/{FIGURE_1}/seed0/step5000_residual.parquet",
        ]),
        ("claims.theorem1_fluctuations", ["random_matrices/spikes/positions.parquet"]),
    ],
)  # fmt: skip
def test_reads_gives_the_results_in_the_order_of_the_entry(
    reader: str, expected: list[str]
) -> None:
    assert paths_of(reader) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("datasets/mnist_1000.safetensors", {}),
        ("histories/mnist_lb/seed1.parquet", {"dataset": "datasets/mnist_1000.safetensors"}),
        ("checkpoints/mnist_basins_sb/seed1/step0.safetensors", {
            "dataset": "datasets/mnist_4000.safetensors",
            "start": "checkpoints/mnist_basins_lb/seed1/step1500.safetensors",
        }),
        ("spectra/mnist_lb/seed1/step3000_ggn.parquet", {
            "dataset": "datasets/mnist_1000.safetensors",
            "checkpoint": "checkpoints/mnist_lb/seed1/step3000.safetensors",
        }),
        ("outliers/mnist_lb/seed1.parquet", {
            "spectra": [f"spectra/mnist_lb/seed1/step3000_{matrix}.parquet" for matrix in Matrix],
        }),
        ("landscape/mnist_basins_sb/seed0/line.parquet", {
            "dataset": "datasets/mnist_4000.safetensors",
            "start": "checkpoints/mnist_basins_lb/seed0/step1500.safetensors",
            "end": "checkpoints/mnist_basins_sb/seed0/step1500.safetensors",
        }),
        ("landscape/mnist_basins_sb/seed0/line_to_seed1.parquet", {
            "dataset": "datasets/mnist_4000.safetensors",
            "start": "checkpoints/mnist_basins_sb/seed0/step1500.safetensors",
            "end": "checkpoints/mnist_basins_sb/seed1/step1500.safetensors",
        }),
        ("landscape/mnist_basins_sb/seed0/line_to_seed1_aligned.parquet", {
            "dataset": "datasets/mnist_4000.safetensors",
            "start": "checkpoints/mnist_basins_sb/seed0/step1500.safetensors",
            "end": "landscape/mnist_basins_sb/seed1/aligned_to_seed0.safetensors",
        }),
        ("landscape/mnist_basins_sb/seed1/aligned_to_seed0.safetensors", {
            "dataset": "datasets/mnist_4000.safetensors",
            "reference": "checkpoints/mnist_basins_sb/seed0/step1500.safetensors",
            "other": "checkpoints/mnist_basins_sb/seed1/step1500.safetensors",
        }),
        ("random_matrices/logistic_alpha1/law.parquet", {}),
    ],
)  # fmt: skip
def test_inputs_of_names_what_the_job_reads(path: str, expected: dict[str, Any]) -> None:
    assert inputs(path) == expected


@pytest.mark.parametrize("group", ["plane_to_seed1", "plane_to_seed1_points"])
def test_inputs_of_a_plane_are_both_parts_and_the_other_end_aligned(group: str) -> None:
    found = inputs(f"landscape/mnist_basins_sb/seed0/{group}.parquet")
    for part, name in (("first_part", "mnist_basins_lb"), ("second_part", "mnist_basins_sb")):
        assert found[part] == [
            f"checkpoints/{name}/seed0/step{step}.safetensors" for step in range(0, 1501, 150)
        ]
    assert found["other"] == "landscape/mnist_basins_sb/seed1/aligned_to_seed0.safetensors"


def test_decomposition_reads_every_spectrum_of_its_run() -> None:
    found = inputs(f"decompositions/{FIGURE_1}/seed0.parquet")
    assert found["outliers"] == f"outliers/{FIGURE_1}/seed0.parquet"
    assert found["spectra"] == [
        f"spectra/{FIGURE_1}/seed0/step{step}_{matrix}.parquet"
        for step in range(0, 5001, 500)
        for matrix in Matrix
    ]


def test_decomposition_needs_all_three_matrices() -> None:
    kinds = {
        name: {key.kind for key in plan.produces(name, CONFIG)}
        for name, plan in CONFIG.experiments.items()
    }
    assert ResultKind.DECOMPOSITIONS in kinds["mnist_lb"]
    assert ResultKind.DECOMPOSITIONS not in kinds["clusters_gd_relu_k5_cov1"]


def test_training_too_large_for_spectra_has_no_outliers() -> None:
    plan = CONFIG.experiments["cifar10_basins_sb"]
    assert plan.computes("cifar10_basins_sb") == []
    kinds = {key.kind for key in plan.produces("cifar10_basins_sb", CONFIG)}
    assert ResultKind.OUTLIERS not in kinds
    assert ResultKind.EIGENPAIRS in kinds  # at the end, for the table of sharpness


def test_statement_about_counts_alone_reads_outliers() -> None:
    counting = {
        name
        for name, entry in READERS.items()
        if name.startswith("claims.")
        and any(key.kind is ResultKind.OUTLIERS for key in entry.reads(CONFIG))
    }
    assert counting == {
        "claims.outliers_match_clusters",
        "claims.more_clusters_more_outliers",
        "claims.batches_have_as_many_outliers",
    }
