"""Records of the origin of each output, versioned with the outputs.

Snakemake decides which files are out of date by its own records of the last run in this folder.
They do not cover files that `dvc pull`, `dvc checkout` or a copy has placed there since. Every job
therefore writes a second record for each of its outputs, its *origin*: a digest of the output, and
a fingerprint of the rule, the parameters and the content of all inputs, including code. It
contains no times, so that equal results have equal records, and DVC versions it with the output. A
local copy, which is not versioned, records what the last job in this folder wrote: a file that
differs from it is *foreign*, and `hesspipe.workflow.adopt` decides whether to use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hesspipe.errors import DamagedFileError
from hesspipe.files import digest, write_text
from hesspipe.workflow.stages import STAGES, is_output, origins_of, outputs_on_disk, stage_of

_LOCAL = Path(".hesspipe/origins")


@dataclass(frozen=True)
class Origin:
    """The digest of an output, and the job that made it.

    Attributes
    ----------
    rule : str
    content : str
        SHA-256 of the output.
    fingerprint : str
        See `fingerprint`.
    """

    rule: str
    content: str
    fingerprint: str

    def write(self, path: str) -> None:
        """Store this record as the origin of the file at `path`, with its local copy."""
        write_text(json.dumps(asdict(self), indent=1) + "\n", tracked_path(path))
        self.remember(path)

    def remember(self, path: str) -> None:
        """Store this record as the local one of the file at `path`."""
        local = {"file": _signature(path), "origin": asdict(self)}
        write_text(json.dumps(local | {"digest": _digest_of(local)}), _local_path(path))


def fingerprint(
    rule: str, wildcards: Mapping[str, str], params: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Digest everything that affects the outputs of a job.

    Parameters
    ----------
    rule : str
    wildcards, params : mapping
        Of JSON-like values; the order of keys does not matter.
    inputs : mapping
        Path of each input, code included, to the SHA-256 of its content.

    Returns
    -------
    str
        A SHA-256.

    Examples
    --------
    >>> one = fingerprint("train", {"seed": "0"}, {"step": 1, "size": 2}, {})
    >>> one == fingerprint("train", {"seed": "0"}, {"size": 2, "step": 1}, {})
    True
    >>> one == fingerprint("train", {"seed": "0"}, {"size": 1, "step": 2}, {})
    False
    """
    parts = [rule, dict(wildcards), dict(params), dict(inputs)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def record_job(job: Any) -> None:
    """Write the origin of every output of a job that has just succeeded.

    Results that are kept in a storage have none: neither DVC nor a copy puts files there.

    Parameters
    ----------
    job : Snakemake
        The object `snakemake` of its script.
    """
    found = fingerprint(
        job.rule,
        dict(job.wildcards.items()),
        dict(job.params.items()),
        {str(path): content_of(str(path)) for path in job.input},
    )
    for path in filter(is_output, map(str, job.output)):
        Origin(job.rule, digest(path), found).write(path)


def check_inputs(paths: Iterable[str]) -> None:
    """Compare the inputs of a job with what their own jobs wrote, before the job reads them.

    The times of files may be those of other contents, after a copy or a fault of a disk.

    Raises
    ------
    DamagedFileError
        If one differs from its origin, be it a whole file in the place of another.
    """
    for path in paths:
        origin = tracked_origin(path) if is_output(path) else None
        if origin is not None and digest(path) != origin.content:
            raise DamagedFileError(path, f"its SHA-256 is not the one in {tracked_path(path)}")


def content_of(path: str) -> str:
    """Compute the SHA-256 of a file, without reading it if a job here wrote it last."""
    local = _read_local(path)
    if local is not None and local[0] == _signature(path):
        return local[1].content
    return digest(path)


def tracked_origin(path: str) -> Origin | None:
    """Read the versioned record of an output, if it exists."""
    try:
        return Origin(**json.loads(tracked_path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None


def local_origin(path: str) -> Origin | None:
    """Read the local record of a file, if the file has not changed since."""
    local = _read_local(path)
    if local is None:
        return None
    signature, origin = local
    if signature != _signature(path):
        if digest(path) != origin.content:
            return None
        origin.remember(path)  # only its time has changed
    return origin


def remembered_origin(path: str) -> Origin | None:
    """Read the local record of a file, whatever the file is now."""
    local = _read_local(path)
    return None if local is None else local[1]


def unsettled_outputs() -> list[str]:
    """List the outputs that are foreign, or whose two records differ.

    An output without a versioned record gets a copy of its local record.
    """
    found = []
    for path in outputs_on_disk():
        local, tracked = local_origin(path), tracked_origin(path)
        if local is not None and tracked is None:
            local.write(path)
        elif local is None or local != tracked:
            found.append(path)
    return found


def forget_absent(paths: Iterable[str]) -> None:
    """Delete the records of outputs that no job of this configuration makes."""
    for path in paths:
        # By the versioned records, those to be deleted are found: they go last.
        _local_path(path).unlink(missing_ok=True)
        tracked_path(path).unlink(missing_ok=True)


def recorded_outputs() -> list[str]:
    """List every output that has a versioned record, whether or not it exists."""
    return sorted(
        path.relative_to(root).as_posix().removesuffix(".json")
        for root in map(Path, map(origins_of, STAGES))
        for path in root.rglob("*.json")
    )


def tracked_path(path: str) -> Path:
    """Path of the versioned record of an output.

    Examples
    --------
    >>> tracked_path("figures/fig1.pdf").as_posix()
    'results/origins_of_products/figures/figures/fig1.pdf.json'
    """
    return Path(origins_of(stage_of(path)), f"{path}.json")


def _local_path(path: str) -> Path:
    return _LOCAL / f"{path}.json"


def _read_local(path: str) -> tuple[list[int], Origin] | None:
    try:
        local = json.loads(_local_path(path).read_text(encoding="utf-8"))
        if local.pop("digest") != _digest_of(local):
            return None  # damaged: what it says of the file must not be believed
        return local["file"], Origin(**local["origin"])
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _digest_of(local: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(local).encode()).hexdigest()


def _signature(path: str) -> list[int]:
    """Size and time of a file, which identify its content."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]
