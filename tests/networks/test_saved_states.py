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


STATE = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16}


@pytest.mark.parametrize("dtype", STATE.values(), ids=STATE)
@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_load_state_takes_files_of_torch_save_without_rounding(
    tmp_path: Path, dtype: torch.dtype, entry: str | None, is_zip: bool
) -> None:
    state = {name: value.to(dtype) for name, value in regression(1).state_dict().items()}
    content = state if entry is None else {entry: state, "epoch": 3, "loss": torch.tensor(1.0)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    network = regression(2)
    load_state(network, tmp_path / "a.pt")
    for name, value in state.items():
        assert torch.equal(network.state_dict()[name], value.double())


def refusals() -> dict[str, tuple[object, str]]:
    state = dict(regression().state_dict())
    optimizer = torch.optim.Adam(regression().parameters()).state_dict()
    return {
        "module": (nn.Linear(1, 1), "got torch.nn.modules.linear.Linear, and reading it"),
        "path": ({"state_dict": state, "at": Path()}, r"got pathlib.*weights_only=False"),
        "optimizer": (optimizer, "got a mapping with a dict as 'state'"),
        "two": ({"model": state, "ema": state}, r"got 2: \['model', 'ema'\]; keep the one"),
        "tensor": (torch.ones(3), "must hold tensors by name, got a Tensor"),
        "epoch": ({**state, "epoch": 3}, "got a mapping with a int as 'epoch'"),
        "int8": ({name: value.to(torch.int8) for name, value in state.items()},
                 "has 0.weight of int8, where the network has float64"),
        "sparse": ({**state, "0.weight": state["0.weight"].to_sparse()}, "has 0.weight, which is"),
        "ddp": ({f"module.{name}": value for name, value in state.items()},
                r"names that begin with 'module.'.*removeprefix\('module.'\)"),
        "missing": ({"model": {"0.bias": state["0.bias"]}}, "lacks 0.weight, lacks 2.weight"),
    }  # fmt: skip


@pytest.mark.parametrize("case", refusals())
def test_load_state_refuses_other_content_of_torch_save_in_one_line(
    tmp_path: Path, case: str
) -> None:
    content, message = refusals()[case]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message) as caught:
        load_state(regression(), tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_flipped", [True, False])
def test_load_state_refuses_a_damaged_file_of_torch_save(tmp_path: Path, is_flipped: bool) -> None:
    state = regression().state_dict()
    torch.save(state, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    if is_flipped:
        content[content.find(state["0.weight"].numpy().tobytes()) + 2] ^= 255
    else:
        del content[-200:]
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt.* is damaged or incomplete, or"):
        load_state(regression(), tmp_path / "a.pt")
