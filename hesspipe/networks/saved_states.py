"""State dicts saved by other programs: read, checked, and loaded into a network."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from hesspipe.data.user import read_user_tensors
from hesspipe.networks.checkpoints import mismatches


def load_state(network: nn.Module, path: str | Path) -> None:
    """Load a saved state dict into a network.

    Parameters
    ----------
    network : nn.Module
        Changed in place; unchanged if the state does not fit.
    path : str or Path
        A safetensors file. Tied weights may be saved under one of their names or under all.

    Raises
    ------
    ValueError
        If the file is not a safetensors file, a name is missing or unknown, a shape differs, or a
        value is not finite.
    """
    saved, expected = read_user_tensors(path), network.state_dict()
    known = {tensor.data_ptr(): name for name, tensor in expected.items() if name in saved}
    complete = dict(saved)
    for name, tensor in expected.items():
        if name not in saved and tensor.data_ptr() in known:
            complete[name] = saved[known[tensor.data_ptr()]]
    mistakes = mismatches(complete, expected)
    if mistakes:
        raise ValueError(
            f"{path} must hold the state dict of this network, but it {mistakes}; save it "
            "with safetensors.torch.save_file(network.state_dict(), path)"
        )
    network.load_state_dict(complete)
