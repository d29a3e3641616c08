"""Writes are atomic, and damaged files are refused."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hesspipe.errors import DamagedFileError, UnreadableFileError
from hesspipe.files import (
    atomic_path,
    digest,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)

TENSORS = {
    "weight": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "label": torch.tensor([3, -1]),
    "empty": torch.zeros(0, 2),
}
REBUILD = "delete it and rebuild it with: snakemake --cores all "
# Writes 80,000 bytes where the system allows 8,192; the limit simulates a full disk.
WRITE_ON_FULL_DISK = """
import resource, signal, sys
import torch
from hesspipe.files import write_tensors
tensor = torch.ones(10_000, dtype=torch.float64)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    write_tensors({"a": tensor}, sys.argv[1], {})
except OSError as error:
    print(error.errno, error)
"""


@pytest.fixture
def tensor_file(tmp_path):
    path = tmp_path / "tensors.safetensors"
    write_tensors(TENSORS, path, {"note": "made by a test"})
    return path


def write_and_fail(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half of")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError(28, "full")])
def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_and_fail(path, error)
    assert [file.name for file in tmp_path.iterdir()] == ["result.txt"]
    assert path.read_text() == "old"


def test_atomic_path_leaves_nothing_when_a_first_write_fails(tmp_path):
    with pytest.raises(RuntimeError, match="no"):
        write_and_fail(tmp_path / "result.txt", RuntimeError("no"))
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_shows_the_new_file_only_after_the_block(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["result.txt"]


def test_atomic_path_names_the_file_that_could_not_be_written(tmp_path):
    path = tmp_path / "result.txt"
    with pytest.raises(OSError, match="could not be written") as caught:
        write_and_fail(path, OSError(28, "No space left on device"))
    assert caught.value.errno == 28
    assert f"{path} could not be written (No space left on device)" in str(caught.value)


def test_atomic_path_keeps_the_ending_and_the_folder(tmp_path):
    with atomic_path(tmp_path / "deep" / "figure.pdf") as temporary:
        assert temporary.parent == tmp_path / "deep"
        assert temporary.suffix == ".pdf"
        temporary.write_bytes(b"%PDF")
    assert (tmp_path / "deep" / "figure.pdf").read_bytes() == b"%PDF"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_atomic_path_gives_the_permissions_that_umask_allows(tmp_path, umask, mode):
    path = tmp_path / "result.txt"
    before = os.umask(umask)
    try:
        write_text("text", path)
        assert os.umask(umask) == umask  # the umask of the process is unchanged
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_write_text_writes_utf_8(tmp_path):
    write_text("λ ≥ 0\n", tmp_path / "result.txt")
    assert (tmp_path / "result.txt").read_bytes() == b"\xce\xbb \xe2\x89\xa5 0\n"


def run_on_full_disk(path: Path) -> str:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", WRITE_ON_FULL_DISK, str(path)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_write_tensors_leaves_nothing_on_a_full_disk(tmp_path):
    path = tmp_path / "big.safetensors"
    said = run_on_full_disk(path)
    assert said.startswith("27 ")  # EFBIG
    assert f"{path} could not be written" in said
    assert "nothing was left behind" in said
    assert list(tmp_path.iterdir()) == []


def test_write_tensors_keeps_the_old_file_on_a_full_disk(tensor_file):
    before = tensor_file.read_bytes()
    assert f"{tensor_file} could not be written" in run_on_full_disk(tensor_file)
    assert tensor_file.read_bytes() == before
    assert list(tensor_file.parent.iterdir()) == [tensor_file]


def test_read_tensors_returns_what_was_written(tensor_file):
    tensors, about = read_tensors(tensor_file)
    assert about == {"note": "made by a test"}
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_read_tensors_gives_places_that_do_not_depend_on_the_header(tmp_path):
    # Sums over the same numbers at another place are rounded in another order.
    for length in range(0, 80, 8):
        path = tmp_path / "tensors.safetensors"
        write_tensors({"a": torch.ones(9), "b": torch.ones(3)}, path, {"note": "x" * length})
        tensors, _ = read_tensors(path)
        assert [tensor.data_ptr() % 64 for tensor in tensors.values()] == [0, 0]


def test_write_tensors_stores_values_not_memory_layout(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_tensors({"a": tensor.requires_grad_()}, tmp_path / "a.safetensors", {})
    write_tensors({"a": tensor.detach().contiguous()}, tmp_path / "b.safetensors", {})
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")[0]["a"], tensor)
    assert digest(tmp_path / "a.safetensors") == digest(tmp_path / "b.safetensors")


def test_write_tensors_gives_equal_bytes_for_equal_notes(tmp_path):
    # safetensors writes several entries of its header in an order that changes at each call.
    notes = {f"key {i}": f"value {i}, λ" for i in range(8)}
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for i, path in enumerate(paths):
        write_tensors(TENSORS, path, dict(reversed(notes.items())) if i % 2 else notes)
    assert len({digest(path) for path in paths}) == 1
    assert read_tensors(paths[0])[1] == notes


def test_write_tensors_gives_equal_bytes_in_any_order_of_names(tmp_path, tensor_file):
    again = tmp_path / "again.safetensors"
    write_tensors(dict(reversed(TENSORS.items())), again, {"note": "made by a test"})
    assert again.read_bytes() == tensor_file.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_read_tensors_refuses_a_truncated_file(tensor_file, share):
    content = tensor_file.read_bytes()
    tensor_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedFileError) as caught:
        read_tensors(tensor_file)
    assert str(caught.value).startswith(f"{tensor_file} is damaged or incomplete (")
    assert str(caught.value).endswith(f"{REBUILD}{tensor_file}")


@pytest.mark.parametrize(
    "content", [b"PAR1 is another format", b"\xff" * 1000, b"\x02" + b"\0" * 7 + b"{}x"]
)
def test_read_tensors_refuses_other_files(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=REBUILD):
        read_tensors(path)


def test_read_tensors_says_how_to_build_a_missing_file(tmp_path):
    path = tmp_path / "absent.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        read_tensors(path)
    assert (
        str(caught.value) == f"{path} does not exist; build it with: snakemake --cores all {path}"
    )


def test_read_tensors_says_that_a_folder_is_no_file(tmp_path):
    with pytest.raises(UnreadableFileError) as caught:
        read_tensors(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} could not be read (it is a folder, and must be a file); it was not changed. "
        "Move it away, then run the same command again"
    )


def test_digest_is_that_of_hashlib(tmp_path):
    content = bytes(range(256)) * 5000  # more than one buffer
    (tmp_path / "file").write_bytes(content)
    assert digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_atomic_path_does_not_blame_its_target_for_another_file(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="nowhere"),
        atomic_path(tmp_path / "out.bin") as temporary,
    ):
        temporary.write_bytes(Path("/nowhere/in.bin").read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_names_a_target_whose_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"file/out.bin could not be written"),
        atomic_path(tmp_path / "file" / "out.bin"),
    ):
        pass


def test_write_json_keeps_the_order_and_every_digit(tmp_path):
    content = {"zeta": 1 / 3, "alpha": {"gap": 2, "elbow": [1, 5e-324]}}
    write_json(content, tmp_path / "metrics.json")
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == content
    assert list(json.loads(text)) == ["zeta", "alpha"]
    assert text.endswith("}\n")
