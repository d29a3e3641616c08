"""The stages of dvc.yaml, and the files that each of them owns.

DVC versions a few folders; Snakemake decides which files in them are out of date. A stage owns
whole folders, so the folder of a file determines its stage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hesspipe.errors import UnreadableFileError
from hesspipe.temporary_files import remove_leftovers
from hesspipe.unfinished import state_root
from hesspipe.workflow.closure import code_closure

# Folders of the origins of results, and of what is made from results. Products depend on the
# first folder as a whole, in which every change of a result shows.
_ORIGINS = "results/origins"
_ORIGINS_OF_PRODUCTS = "results/origins_of_products"
_PRODUCTS = ("tables", "figures", "claims")
# In the order in which they depend on each other.
STAGES = {
    "datasets": ("results/datasets",),
    "training": ("results/checkpoints", "results/histories"),
    "spectra": ("results/spectra", "results/densities", "results/eigenpairs"),
    "outliers": ("results/outliers", "results/decompositions", "metrics"),
    "directions": ("results/directions",),
    "landscape": ("results/landscape",),
    "random_matrices": ("results/random_matrices",),
    "tables": ("tables",),
    "figures": ("results/curves", "figures"),
    "claims": ("claims.json", "claims"),
}
# What the jobs of each stage run: scripts, and packages whose modules are imported by name.
_SCRIPTS = {
    "datasets": ("make_dataset",),
    "training": ("train", "import_state"),
    "spectra": ("extract_spectrum", "estimate_density", "find_eigenpairs"),
    "outliers": ("count_outliers", "summarize_outliers", "decompose"),
    "directions": ("measure_directions",),
    "landscape": ("evaluate_line", "align_units", "evaluate_plane"),
    "random_matrices": ("compare_with_laws", "sample_spikes", "sample_spiked_spectra"),
    "tables": ("render_table",),
    "figures": ("smooth_densities", "render_figure"),
    "claims": ("check_claims",),
}
_IMPORTED_BY_NAME = {"tables": "hesspipe/tables", "figures": "hesspipe/figures"}


def code_of(stage: str) -> set[str]:
    """Collect the scripts and the modules that the jobs of a stage run.

    The current folder must be that of scripts/ and hesspipe/.
    """
    folder = _IMPORTED_BY_NAME.get(stage)
    paths = sorted(Path(folder).glob("[a-z]*.py")) if folder else []
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    return {
        file
        for script in _SCRIPTS[stage]
        for file in code_closure(f"scripts/{script}.py", ".", modules)
    }


def stage_of(path: str) -> str:
    """Name the stage that owns an output.

    Parameters
    ----------
    path : str
        Relative to the folder that the workflow runs in.

    Raises
    ------
    ValueError
        If no stage owns it.

    Examples
    --------
    >>> stage_of("results/checkpoints/mnist_lb/seed0/step0.safetensors")
    'training'
    """
    stage = _owner(path)
    if stage is None:
        raise ValueError(f"path must be in a folder of a stage, got {path!r}; see STAGES")
    return stage


def is_output(path: str) -> bool:
    """Whether a stage owns a file.

    Examples
    --------
    >>> is_output("results/datasets/mnist.safetensors"), is_output("hesspipe/files.py")
    (True, False)
    """
    return _owner(path) is not None


def _owner(path: str) -> str | None:
    for stage, folders in STAGES.items():
        if any(Path(path).is_relative_to(folder) for folder in folders):
            return stage
    return None


def origins_of(stage: str) -> str:
    """Name the folder of the origins of a stage's outputs."""
    return f"{_ORIGINS_OF_PRODUCTS if stage in _PRODUCTS else _ORIGINS}/{stage}"


def folders_on_disk() -> list[str]:
    """List the folders of the stages that exist."""
    owned = [folder for folders in STAGES.values() for folder in folders]
    return [folder for folder in owned if Path(folder).is_dir()]


def clean_folders() -> None:
    """Remove the temporary files of killed jobs, and refuse what Snakemake would take for a result.

    Raises
    ------
    FileExistsError
        For a file, or a link to nowhere, in the place of a folder.
    UnreadableFileError
        For a folder with the name of a file, that is with a dot in it, a link to nowhere, or what
        is no regular file, such as a pipe.
    """
    own = {".hesspipe", str(state_root())}
    owned = [folder for folders in STAGES.values() for folder in folders]
    for path in map(Path, ["results", "logs", *own, *owned]):
        if os.path.lexists(path) and not path.is_dir() and not path.suffix:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
    remove_leftovers([*folders_on_disk(), _ORIGINS, _ORIGINS_OF_PRODUCTS, *own])
    for root in folders_on_disk():
        for folder, names, _ in os.walk(root):
            for path in (Path(folder, name) for name in names if "." in name[1:]):
                raise UnreadableFileError(path, IsADirectoryError(errno.EISDIR, "Is a folder"))
    # Not in $HESSPIPE_STATE, which may be a folder for all programs.
    for root in [*folders_on_disk(), _ORIGINS, _ORIGINS_OF_PRODUCTS, ".hesspipe"]:
        for folder, _, files in os.walk(root):
            _require_regular(Path(folder, name) for name in files)


def _require_regular(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_file() or not os.path.lexists(path):  # renamed meanwhile
            continue
        if not path.exists():
            raise UnreadableFileError(path, FileNotFoundError(errno.ENOENT, "Dead link"))
        # Whoever opens a named pipe may wait for ever.
        raise UnreadableFileError(path, OSError(errno.EINVAL, "It is not a regular file"))


def outputs_on_disk() -> Iterator[str]:
    """List every file in the folders of the stages, in alphabetical order within each folder.

    A folder may be a link to one outside the project, on a larger disk.
    """
    for folders in STAGES.values():
        for folder in map(Path, folders):
            for path in _files_below(folder) if folder.is_dir() else [folder]:
                # Hidden files are those that an atomic write has not renamed yet.
                if path.is_file() and not path.name.startswith("."):
                    yield path.as_posix()


def _files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """List what is below a folder, without those that are there by another path, or in a circle."""
    place = folder.resolve()
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path
        elif not path.is_symlink() or _is_elsewhere(path.resolve(), above | {place}):
            yield from _files_below(path, above | {place})


def _is_elsewhere(place: Path, above: frozenset[Path]) -> bool:
    project = Path.cwd().resolve()
    is_part = place.is_relative_to(project) or project.is_relative_to(place)
    return not is_part and place not in above


def make_folders() -> None:
    """Create every folder of the stages, because DVC requires even those that stay empty."""
    for stage, folders in STAGES.items():
        for folder in [*folders, origins_of(stage)]:
            if not Path(folder).suffix:
                Path(folder).mkdir(parents=True, exist_ok=True)
