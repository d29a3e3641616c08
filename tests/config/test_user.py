"""Errors in user functions, files and groups are reported before any job starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from hesspipe.config.loading import validate_config
from hesspipe.config.producers import inputs_of
from hesspipe.config.results import ResultKind
from hesspipe.config.schema import Config
from hesspipe.errors import ConfigError

VALID = """
datasets:
  mine: {kind: user, function: "my_data:passages", arguments: {length: 8}}
  stored: {kind: file, path: data.safetensors}
  blobs: {kind: gaussian_clusters, num_clusters: 2, cluster_std: 1.0, num_features: 3,
    center_low: -1.0, center_high: 1.0, num_train: 8, num_test: 4, seed: 0}
experiments:
  trained:
    dataset: mine
    seeds: [0, 1]
    model: &model {kind: user, function: "my_nets:build", arguments: {width: 3},
      loss: "torch.nn:MSELoss", loss_arguments: {}}
    training: {algorithm: sgd, batch_size: 4, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, dtype: float64}
    spectra: {steps: all, matrices: [hessian, ggn]}
  saved:
    dataset: stored
    seeds: [0]
    model: *model
    training: {algorithm: saved, path: state.safetensors}
    matrix_free:
      steps: ends
      matrices: [hessian]
      dtype: float32
      batch_size: 16
      groups: {embedding: ["embedding.*"]}
      group_matrices: [hessian]
      density: {num_probes: 2, num_steps: 10, seed: 0}
      eigenpairs: {num_smallest: 2, num_largest: 5, tolerance: 1.0e-5, max_products: 100, seed: 0}
spectrum: {zero_tolerance: 1.0}
outliers: {rules: [gap, ratio, elbow], num_candidates: 5}
figures:
  all: {kind: ordered, experiment: trained, seed: 0, steps: [0, 10], matrix: ggn}
  ends: {kind: overlay, experiment: trained, seed: 0, step: 4, matrices: [hessian, ggn],
    num_largest: 9, num_smallest: 9}
  moves: {kind: over_training, experiment: trained, seed: 0, steps: [0, 4], matrix: hessian,
    num_largest: 9, num_smallest: 9}
  apart: {kind: outliers, experiment: saved, seed: 0, step: 0, matrix: hessian, num_largest: 5}
  smooth: {kind: densities, experiment: saved, seed: 0, step: 0, matrices: [hessian],
    relative_width: 0.01, num_points: 100}
  parts: {kind: layers, experiment: saved, seed: 0, step: 0, matrix: hessian,
    titles: {network: Whole, embedding: Embedding}, relative_width: 0.01, num_points: 100}
"""
ABSENT = object()
TENSORS = {"embedding.weight": np.zeros((2, 3)), "embedding.bias": np.zeros(2)}
TRAINED, SAVED = "experiments.trained", "experiments.saved"
FREE = f"{SAVED}.matrix_free"
MISTAKES: list[tuple[str, Any, str]] = [
    ("datasets.mine.function", "my_data.passages", "{0} must be a name of the form "
     "package.module:function, such as 'my_data:passages', got 'my_data.passages'"),
    ("datasets.mine.function", "my_date:passages", "{0} must name a module in this folder or an "
     "installed one, got 'my_date:passages'; there is no my_date.py here"),
    ("datasets.mine.function", "my_data:passage", "{0} must name a function of my_data.py, which "
     "has passages; got 'my_data:passage'"),
    ("datasets.mine.arguments", ABSENT, "{0} is missing"),
    ("datasets.stored.path", "date.safetensors", "{0} must be a safetensors file, got "
     "'date.safetensors', which does not exist"),
    (f"{TRAINED}.model.function", "my_nets:bild", "{0} must name a function of my_nets.py, which "
     "has build; got 'my_nets:bild'"),
    (f"{TRAINED}.model.loss", "no_such_losses:mine", "{0} must name a module in this folder or an "
     "installed one, got 'no_such_losses:mine'; there is no no_such_losses.py here"),
    (f"{TRAINED}.model.loss", ABSENT, "{0} is missing"),
    (f"{TRAINED}.model.hidden_widths", [3], "{0} is not a key of this section"),
    (f"{SAVED}.training.path", "nowhere", "{0} must be a safetensors file or one of "
     "torch.save, got 'nowhere', which does not exist"),
    (f"{SAVED}.seeds", [0, 1], "{0} must be one seed for one saved state, got [0, 1]"),
    (f"{FREE}.steps", [0, 3], f"{FREE}.steps must have a checkpoint (0), got 3"),
    (f"{FREE}.groups", {"network": ["*"], "embedding": ["*"]},
     "{0} must not be named 'network', the group of all parameters; rename it"),
    (f"{FREE}.density.num_probes", 1, "{0} must be at least 2, got 1"),
    (f"{FREE}.batch_size", 0, "{0} must be at least 1, got 0"),
    ("outliers.num_candidates", 6, f"{{0}} must be at most {FREE}.eigenpairs.num_largest (5), "
     "got 6"),
    ("figures.all.experiment", "saved", "figures.all reads spectra of saved (ggn, step 0, seed 0); "
     f"{SAVED}.spectra must be set, got nothing"),
    ("figures.smooth.experiment", "trained", "figures.smooth reads densities of trained (hessian, "
     f"network, step 0, seed 0); {TRAINED}.matrix_free must be set, got nothing"),
    ("figures.moves.steps", [0, 3], "figures.moves reads spectra of trained (hessian, step 3, "
     f"seed 0); {TRAINED}.spectra.steps must include 3, got [0, 4, 8, 10]"),
    ("figures.ends.matrices", ["residual"], "figures.ends reads spectra of trained (residual, "
     f"step 4, seed 0); {TRAINED}.spectra.matrices must include 'residual', "
     "got ['hessian', 'ggn']"),
    ("figures.smooth.matrices", ["ggn"], "figures.smooth reads densities of saved (ggn, network, "
     f"step 0, seed 0); {FREE}.matrices must include 'ggn', got ['hessian']"),
    ("figures.parts.titles.head", "Head", "figures.parts reads densities of saved (hessian, head, "
     f"step 0, seed 0); {FREE}.groups must include 'head', got ['embedding']"),
    (f"{FREE}.group_matrices", ["ggn"], "figures.parts reads densities of saved (hessian, "
     f"embedding, step 0, seed 0); {FREE}.group_matrices must include 'hessian', got ['ggn']"),
    (f"{TRAINED}.starts_from", "saved", "{0} must join two trainings, got a saved state"),
    ("figures.apart.num_largest", 6, "{0} must be at most "
     f"{FREE}.eigenpairs.num_largest (5), got 6"),
    ("figures.smooth.relative_width", 0, "{0} must be greater than 0.0, got 0"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text("def passages(length): ...\n")
    (tmp_path / "my_nets.py").write_text("def build(width): ...\n")
    for name in ("data", "state"):
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)


def valid() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(VALID)))
    return raw


def check(**changes: Any) -> Config:
    raw = valid()
    for place, value in changes.items():
        *path, last = place.split(".")
        part = raw
        for key in path:
            part = part[key]
        if value is ABSENT:
            del part[last]
        else:
            part[last] = value
    return validate_config(raw, "some.yaml")


@pytest.mark.parametrize(("place", "value", "expected"), MISTAKES)
def test_validate_config_reports_an_error_of_the_user_in_one_line(
    place: str, value: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{place: value})
    assert str(caught.value) == f"some.yaml: {expected.format(place)}"


def test_saved_state_has_one_checkpoint_and_its_results_are_at_step_0() -> None:
    plan = check().experiments["saved"]
    assert plan.checkpoint_steps == plan.matrix_free_steps == [0]
    assert plan.spectrum_steps == []
    assert plan.extremes_kind is ResultKind.EIGENPAIRS
    assert plan.extremes_of("saved", 0) == plan.eigenpairs_of("saved", 0) != []
    assert plan.matrix_free is not None
    assert plan.matrix_free.all_groups == ["network", "embedding"]
    assert plan.matrix_free.densities == [("hessian", "network"), ("hessian", "embedding")]


def test_extremes_are_taken_from_the_whole_spectrum_where_it_is_known() -> None:
    free = valid()["experiments"]["saved"]["matrix_free"]
    plan = check(**{f"{TRAINED}.matrix_free": free}).experiments["trained"]
    assert plan.extremes_kind is ResultKind.SPECTRA
    assert plan.extremes_of("trained", 0) == plan.spectra_of("trained", 0)
    assert (plan.spectrum_steps, plan.matrix_free_steps) == ([0, 4, 8, 10], [0, 10])


def test_lower_end_of_the_ggn_alone_is_refused() -> None:
    free = valid()["experiments"]["saved"]["matrix_free"]
    of_ggn = {"kind": "over_training", "experiment": "trained", "seed": 0, "steps": [0, 10],
              "matrix": "ggn", "num_largest": 5}  # fmt: skip
    place = f"{TRAINED}.matrix_free"
    ends = {f"{TRAINED}.spectra": ABSENT, "figures.all": ABSENT, "figures.ends": ABSENT,
            "figures.moves": ABSENT}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check(**{place: free | {"matrices": ["ggn"]}})
    assert str(caught.value) == (
        f"some.yaml: {place}.eigenpairs.num_smallest must be 0 for the ggn, which has no negative "
        "eigenvalues, got 2"
    )
    both = {place: free | {"matrices": ["hessian", "ggn"]}, **ends}
    assert check(**both, **{"figures.of_ggn": of_ggn | {"num_smallest": 0}})
    assert check(**both, **{"figures.of_ggn": of_ggn | {"num_smallest": 2, "matrix": "hessian"}})
    with pytest.raises(ConfigError) as caught:
        check(**both, **{"figures.of_ggn": of_ggn | {"num_smallest": 2}})
    assert str(caught.value) == (
        "some.yaml: figures.of_ggn.num_smallest must be 0 for eigenpairs of the ggn, which are "
        "its largest, got 2"
    )


def test_network_of_the_paper_is_refused_on_user_data() -> None:
    model = {"kind": "mlp", "hidden_widths": [3], "activation": "relu", "initial_std": 0.1}
    with pytest.raises(ConfigError, match=r"model\.kind must be 'user' for user data, got"):
        check(**{f"{TRAINED}.model": model})


def test_figure_that_needs_classes_is_refused_on_user_data() -> None:
    figure = {"kind": "gaps", "experiments": ["trained"], "seed": 0, "step": 4, "rule": "gap",
              "num_largest": 3}  # fmt: skip
    with pytest.raises(ConfigError, match=r"figures\.gap must read experiments on data with known"):
        check(**{"figures.gap": figure})


def test_user_network_may_be_trained_on_the_papers_data() -> None:
    assert check(**{f"{TRAINED}.dataset": "blobs"})


def test_experiment_must_have_something_computed() -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{f"{TRAINED}.spectra": ABSENT})
    expected = f"some.yaml: {TRAINED} must have spectra, matrix_free or both, got neither"
    assert expected in str(caught.value).splitlines()


def torch_state() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(tensor) for name, tensor in TENSORS.items()}


def write_other_format(path: Path, content: str) -> None:
    """Write a file that is not safetensors."""
    if content.endswith("torch"):
        torch.save(torch_state(), path)
    elif content == "old torch":
        torch.save(torch_state(), path, _use_new_zipfile_serialization=False)
    elif content == "numpy":
        with path.open("wb") as file:
            np.savez(file, **TENSORS)
    elif content == "truncated":
        path.write_bytes(Path("state.safetensors").read_bytes()[:-1])
    elif content == "folder":
        path.mkdir()
    else:
        path.write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("state.pt", "torch", "a PyTorch file; convert it with safetensors.torch.save_file("
         "torch.load('state.pt', map_location='cpu', weights_only=True), 'state.safetensors')"),
        ("state.pth", "torch", "a PyTorch file; convert it with safetensors.torch.save_file("
         "torch.load('state.pth', map_location='cpu', weights_only=True), 'state.safetensors')"),
        ("old.pt", "old torch", "a PyTorch file; convert it with safetensors.torch.save_file("
         "torch.load('old.pt', map_location='cpu', weights_only=True), 'old.safetensors')"),
        ("state.npz", "numpy", "a NumPy archive; convert it with safetensors.numpy.save_file("
         "dict(numpy.load('state.npz')), 'state.safetensors')"),
        ("renamed.safetensors", "torch", "a PyTorch file; convert it with "),
        ("short.safetensors", "truncated", "damaged or incomplete, or of another format; write it "
         "with safetensors.torch.save_file"),
        ("text.safetensors", "some text", "damaged or incomplete, or of another format; "),
        ("there", "folder", "a folder"),
        ("empty.safetensors", "", "empty"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [f"{SAVED}.training.path", "datasets.stored.path"])
def test_file_that_is_not_safetensors_is_refused_with_advice(
    place: str, name: str, content: str, what: str
) -> None:
    write_other_format(Path(name), content)
    is_state = place.startswith(SAVED)
    if is_state and content.endswith("torch"):
        assert check(**{place: name})
        return
    with pytest.raises(ConfigError) as caught:
        check(**{place: name})
    (line,) = str(caught.value).splitlines()
    kind = "a safetensors file or one of torch.save" if is_state else "a safetensors file"
    expected = f"some.yaml: {place} must be {kind}, got {name!r}, which is {what}"
    assert line.startswith(expected)


def test_advice_on_a_torch_file_gives_a_file_that_is_taken() -> None:
    import safetensors.torch

    torch.save(torch_state(), "state.pt")
    with pytest.raises(ConfigError) as caught:
        check(**{"datasets.stored.path": "state.pt"})
    advice = str(caught.value).partition("convert it with ")[2].replace("'state.saf", "'new.saf")
    eval(advice, {"safetensors": safetensors, "torch": torch})
    assert check(**{"datasets.stored.path": "new.safetensors"})


def test_safetensors_file_is_taken_whatever_its_name() -> None:
    save_file(TENSORS, "state.bin")
    assert check(**{f"{SAVED}.training.path": "state.bin"})


USER_NETWORK = """
import torch
from torch import nn


def build(width):
    if torch.empty(0).device.type != "meta":
        raise RuntimeError("the configuration must not fill memory")
    return nn.Sequential(nn.Linear(width, width), nn.Linear(width, 2))


def fail(width):
    raise RuntimeError("only in the job")
"""


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name a user module that no other test has imported."""
    name = f"networks_{abs(hash(request.node.nodeid))}"
    Path(f"{name}.py").write_text(USER_NETWORK)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


def with_groups(networks: str, function: str, groups: dict[str, list[str]]) -> Config:
    free = valid()["experiments"]["saved"]["matrix_free"] | {"groups": groups}
    model = {"kind": "user", "function": f"{networks}:{function}", "arguments": {"width": 10**6},
             "loss": "torch.nn:MSELoss", "loss_arguments": {}}  # fmt: skip
    return check(**{f"{TRAINED}.matrix_free": free, f"{TRAINED}.model": model})


def test_pattern_that_matches_no_parameter_of_a_user_network_is_refused(networks: str) -> None:
    assert with_groups(networks, "build", {"first": ["0.*"], "biases": ["*.bias"]})
    with pytest.raises(ConfigError) as caught:
        with_groups(networks, "build", {"first": ["0.*"], "head": ["2.weight"]})
    assert str(caught.value) == (
        f"some.yaml: {TRAINED}.matrix_free.groups.head must match parameters of the network, got "
        "'2.weight'; the nearest are 1.weight, 0.weight"
    )


@pytest.mark.parametrize("place", ["saved state", "checkpoint"])
def test_network_is_not_built_where_its_stored_parameters_match(networks: str, place: str) -> None:
    path = Path("state.safetensors")
    if place == "checkpoint":
        path = Path("results/checkpoints/trained/seed0/step0.safetensors")
        path.parent.mkdir(parents=True)
        save_file(TENSORS, path)
    Path(f"{networks}.py").write_text(
        "from pathlib import Path\ndef build(width): Path('built').touch()\n"
    )
    groups = {"embedding": ["embedding.*"]}
    if place == "checkpoint":
        assert with_groups(networks, "build", groups)
    else:
        assert check(**{f"{SAVED}.model.function": f"{networks}:build", f"{FREE}.groups": groups})
    assert not Path("built").exists()
    with_groups(networks, "build", {"embedding": ["embeddings.*"]})
    assert Path("built").exists()


def test_pattern_is_compared_with_the_network_where_a_saved_state_does_not_match(
    networks: str,
) -> None:
    changes = {f"{SAVED}.model": {
        "kind": "user", "function": f"{networks}:build", "arguments": {"width": 3},
        "loss": "torch.nn:MSELoss", "loss_arguments": {},
    }}  # fmt: skip
    assert check(**changes, **{f"{FREE}.groups.embedding": ["0.*"]})
    with pytest.raises(ConfigError) as caught:
        check(**changes, **{f"{FREE}.groups.embedding": ["0.weights"]})
    assert str(caught.value) == (
        f"some.yaml: {FREE}.groups.embedding must match parameters of the network, got "
        "'0.weights'; the nearest are 0.weight, 1.weight, 0.bias"
    )


def test_network_that_cannot_be_built_yet_is_left_to_its_job(networks: str) -> None:
    assert with_groups(networks, "fail", {"head": ["nothing"]})


@pytest.mark.parametrize(
    ("figure", "densities"),
    [("smooth", ["hessian_network"]), ("parts", ["hessian_network", "hessian_embedding"])],
)
def test_figure_of_densities_reads_its_own_curves(figure: str, densities: list[str]) -> None:
    config = check()
    (key,) = config.figures[figure].reads(config)
    assert key.path == f"results/curves/{figure}.parquet"
    assert key in config.results()
    (found,) = inputs_of(key, config).values()
    assert isinstance(found, list)
    assert [one.path for one in found] == [
        f"results/densities/saved/seed0/step0_{name}.parquet" for name in densities
    ]


def test_validate_config_refuses_groups_that_get_no_density() -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{f"{FREE}.group_matrices": []})
    assert str(caught.value).splitlines()[0] == (
        f"some.yaml: {FREE}.group_matrices must name the matrices whose densities the groups get, "
        "got []; write [hessian]"
    )
