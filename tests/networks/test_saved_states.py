"""State dicts of other programs: loaded unchanged, or refused with the names that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from user_functions import LANGUAGE, REGRESSION

from hesspipe.networks.build import build_network
from hesspipe.networks.saved_states import load_state


def regression(seed: int = 0) -> nn.Module:
    return build_network(torch.ones(2, 3).double(), None, seed, REGRESSION, torch.float64)


def test_load_state_puts_a_saved_state_into_a_network(tmp_path: Path) -> None:
    saved, network = regression(1), regression(2)
    save_file(saved.state_dict(), tmp_path / "state.safetensors")
    load_state(network, tmp_path / "state.safetensors")
    for name, value in saved.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_load_state_finds_tied_weights_under_one_of_their_names(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        return build_network(torch.ones(2, 3).long(), None, seed, LANGUAGE, torch.float64)

    saved, network = tied(1), tied(2)
    save_model(saved, str(tmp_path / "state.safetensors"))
    load_state(network, tmp_path / "state.safetensors")
    assert torch.equal(next(network.parameters()), next(saved.parameters()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.bias": None}, "the state dict of this network, but it lacks 0.bias;"),
        ({"3.bias": torch.ones(1)}, "it has 3.bias, which the network lacks;"),
        ({"0.bias": torch.ones(3)}, r"it has 0.bias of shape \(3,\), not \(4,\);"),
        ({"0.bias": torch.full((4,), float("nan"))}, "it has nan or inf in 0.bias;"),
        ({"0.bias": None, "2.bias": None, "a": torch.ones(1), "b": torch.ones(1)},
         "lacks 0.bias, lacks 2.bias, has a, which the network lacks .and 1 more."),
        ({"0.bias": None, "0.bia": torch.ones(4)},
         r"lacks 0.bias \(it has 0.bia\), has 0.bia, which the network lacks \(nearest is 0.bias"),
    ],
)  # fmt: skip
def test_load_state_says_what_does_not_fit(
    tmp_path: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    state = {**regression().state_dict(), **changes}
    refused(tmp_path, {name: value for name, value in state.items() if value is not None}, message)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net."])
def test_load_state_names_the_prefix_of_a_wrapper(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in regression().state_dict().items()}
    refused(tmp_path, state, f"has names that begin with '{prefix}', which those of the network")


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_load_state_names_each_tensor_that_is_missing_or_misshapen(
    tmp_path: Path, name: str
) -> None:
    state = dict(regression().state_dict())
    value = state.pop(name)
    refused(tmp_path, state, f"it lacks {name};")
    refused(tmp_path, state | {name: value[..., None]}, f"it has {name} of shape .*, not ")
    refused(tmp_path, state | {f"{name}s": value}, rf"lacks {name} \(it has {name}s\)")


def refused(folder: Path, state: dict[str, Tensor], message: str) -> None:
    path = folder / "state.safetensors"
    save_file(state, path)
    network, before = regression(1), regression(1)
    with pytest.raises(ValueError, match=rf"state.safetensors must hold .*{message}") as caught:
        load_state(network, path)
    assert "\n" not in str(caught.value)
    assert "save it with safetensors.torch.save_file" in str(caught.value)
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
