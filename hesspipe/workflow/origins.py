"""Records of where each output comes from, which travel with the outputs.

Snakemake decides what is out of date by its own records of the last run in this folder. They say
nothing about a file that something else has put there since: `dvc pull`, `dvc checkout`, a copy.
So every job writes a second record for each of its outputs, its *origin*: a digest of the
output, and a fingerprint of the rule, the parameters and the content of all inputs, code
included. It holds no times, so that equal results have equal records, and DVC versions it with
the output. A local copy, which is not versioned, says what the last job in this folder wrote: a
file that differs from it is *foreign*, and `hesspipe.workflow.adopt` decides what happens to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hesspipe.files import digest, write_text
from hesspipe.workflow.stages import ORIGINS, outputs_on_disk, stage_of

_LOCAL = Path(".hesspipe/origins")


@dataclass(frozen=True)
class Origin:
    """What made an output.

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
        """Store this record as the origin of the file at `path`, and remember it locally."""
        write_text(json.dumps(asdict(self), indent=1) + "\n", tracked_path(path))
        self.remember(path)

    def remember(self, path: str) -> None:
        """Store this record as what lies at `path` in this folder now."""
        local = {"file": _signature(path), "origin": asdict(self)}
        write_text(json.dumps(local), _local_path(path))


def fingerprint(
    rule: str, wildcards: Mapping[str, str], params: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Digest everything that decides the outputs of a job.

    Parameters
    ----------
    rule : str
    wildcards, params : mapping
        Of JSON-like values; the order of keys means nothing.
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
    for path in map(str, job.output):
        Origin(job.rule, digest(path), found).write(path)


def content_of(path: str) -> str:
    """Give the SHA-256 of a file, without reading it if it is what a job here wrote."""
    local = _read_local(path)
    if local is not None and local[0] == _signature(path):
        return local[1].content
    return digest(path)


def tracked_origin(path: str) -> Origin | None:
    """Read the record that travels with an output, if there is one."""
    try:
        return Origin(**json.loads(tracked_path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def local_origin(path: str) -> Origin | None:
    """Read the local record of a file, if the file is still what it says."""
    local = _read_local(path)
    if local is None:
        return None
    signature, origin = local
    if signature != _signature(path):
        if digest(path) != origin.content:
            return None
        origin.remember(path)  # only its time has changed
    return origin


def unsettled_outputs() -> list[str]:
    """List the outputs that are foreign, or whose two records differ.

    An output without a tracked record gets that of the local one.
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
    """Delete the records of outputs that no job makes any more."""
    for path in paths:
        tracked_path(path).unlink(missing_ok=True)
        _local_path(path).unlink(missing_ok=True)


def recorded_outputs() -> list[str]:
    """List every output that has a tracked record, whether or not it exists."""
    root = Path(ORIGINS)
    return sorted(
        path.relative_to(root / path.relative_to(root).parts[0]).as_posix().removesuffix(".json")
        for path in root.glob("*/**/*.json")
    )


def tracked_path(path: str) -> Path:
    """Where the origin of an output is stored.

    Examples
    --------
    >>> tracked_path("figures/fig1.pdf").as_posix()
    'results/origins/figures/figures/fig1.pdf.json'
    """
    return Path(ORIGINS, stage_of(path), f"{path}.json")


def _local_path(path: str) -> Path:
    return _LOCAL / f"{path}.json"


def _read_local(path: str) -> tuple[list[int], Origin] | None:
    try:
        local = json.loads(_local_path(path).read_text(encoding="utf-8"))
        return local["file"], Origin(**local["origin"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _signature(path: str) -> list[int]:
    """Size and time of a file: if they are the same, so is its content."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]
