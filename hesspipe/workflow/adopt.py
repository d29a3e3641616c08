"""Adopt or set aside restored files before Snakemake decides which files are out of date.

    make adopt

After `dvc pull`, `dvc checkout` or a copy, a folder contains files that no job has written there,
and Snakemake has no record of them, or a wrong one. Each such file is either *adopted*, if its
origin (see `hesspipe.workflow.origins`) shows that it was made with the present rule, parameters,
code and inputs, or *set aside*: moved to .hesspipe/set_aside, so that Snakemake builds it again.
The Snakefile does this each time it is read, so `snakemake` and `dvc repro` need no other command.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from hesspipe.workflow.failures import one_line_errors
from hesspipe.workflow.origins import (
    Origin,
    content_of,
    fingerprint,
    forget_absent,
    local_origin,
    recorded_outputs,
    tracked_origin,
    unsettled_outputs,
)
from hesspipe.workflow.set_aside import alone, remove_empty_folders, set_aside
from hesspipe.workflow.sources import is_versioned, unwatched_files, write_sources
from hesspipe.workflow.stages import make_folders, outputs_on_disk

# Set in the process that judges the files, whose reading of the Snakefile must not start another.
SETTLING = "HESSPIPE_SETTLING"


def settle(
    snakefile: str,
    config: dict[str, Any],
    expected: Callable[[], Iterable[str]],
    user_files: Iterable[str],
) -> None:
    """Adopt or set aside every file in the folders of the stages that no job here has written.

    Parameters
    ----------
    snakefile : str
    config : dict
        The configuration as Snakemake has merged it.
    expected : callable
        Lists every output that the configuration names. In a stage of DVC, which records whole
        folders, other files are also set aside: they are left over from another configuration.
        Files that match .dvcignore are kept.
    user_files : iterable of str
        Every file of the user that the configuration names, modules behind functions included.

    Raises
    ------
    RuntimeError
        If the jobs cannot be listed, with Snakemake's message, or, in a stage of DVC, if DVC does
        not watch a file of the user. Outside DVC the latter is a warning.
    """
    if SETTLING in os.environ or _is_running():
        return
    if is_versioned():
        _check_watched(user_files)
        make_folders()
        write_sources()
    with alone():
        if _is_running():  # by now
            return
        remove_empty_folders()
        if "DVC_STAGE" in os.environ:
            _set_aside_left_over(set(expected()))
        unsettled = unsettled_outputs()
        if unsettled:
            _judge(snakefile, config, unsettled)


def _is_running() -> bool:
    """Whether another process is writing files now, and judges them itself."""
    locks = Path(".snakemake/locks")
    return locks.is_dir() and any(locks.iterdir())


def _set_aside_left_over(known: set[str]) -> None:
    """Set aside and forget the files that are not known outputs, but for those DVC ignores."""
    recorded = {path for path in recorded_outputs() if path not in known}
    left_over = {path for path in outputs_on_disk() if path not in known}
    # The records first: what a kill leaves in place is then still left over.
    forget_absent(recorded - _ignored(recorded))
    set_aside(sorted(left_over - _ignored(left_over)), "left over from another configuration")


def _judge(snakefile: str, config: dict[str, Any], unsettled: list[str]) -> None:
    """Let another process judge the files, as it reads the Snakefile; set aside what it refuses."""
    done = subprocess.run(
        [sys.executable, "-m", "hesspipe.workflow.adopt", snakefile],
        input=json.dumps({"config": config, "unsettled": unsettled}),
        env=os.environ | {SETTLING: "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"restored files cannot be judged: {done.stderr.strip()}")
    found = Judgement(**json.loads(done.stdout.splitlines()[-1]))
    if found.num_adopted:
        print(
            f"adopted {found.num_adopted} restored files that the present configuration and code "
            "made",
            file=sys.stderr,
        )
    set_aside(found.refused, "of another configuration or code, or of unknown origin")
    # Forgotten first: what a kill leaves in place is then of unknown origin.
    forget_absent(found.left_over)
    set_aside(found.left_over, "that no job of this configuration makes")


def _check_watched(user_files: Iterable[str]) -> None:
    missing = unwatched_files(user_files)
    if missing:
        message = (
            "the deps of the stage `sources` in dvc.yaml must include every file that the "
            f"configuration names, but lack {', '.join(missing)}; add these files or their "
            "folders, so that `dvc repro` notices when they are edited"
        )
        if "DVC_STAGE" in os.environ:
            raise RuntimeError(message)
        print(f"warning: {message}", file=sys.stderr)


def _ignored(paths: Iterable[str]) -> set[str]:
    """Find the paths that match .dvcignore; its patterns here are all relative to its folder."""
    file = Path(".dvcignore")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    patterns = [line.lstrip("/") for line in lines if line and not line.startswith("#")]
    return {path for path in paths if any(fnmatch(path, f"{one}*") for one in patterns)}


@dataclass(frozen=True)
class Job:
    """A job of the graph, with the files that its outputs would be made from."""

    job: Any
    outputs: list[str]
    inputs: list[str]

    def fingerprint(self, contents: dict[str, str | None]) -> str | None:
        """The fingerprint that its outputs must have; None if an input is not known."""
        known = {path: content for path in self.inputs if (content := contents[path]) is not None}
        if len(known) < len(set(self.inputs)):
            return None
        job = self.job
        return fingerprint(job.rule.name, job.wildcards_dict, dict(job.params.items()), known)


@dataclass
class Judgement:
    """What is to become of files that no job here has written.

    Attributes
    ----------
    num_adopted : int
        Files that Snakemake now takes for up to date.
    refused : list of str
        Files that are not what their jobs would make here, or whose origin is not known.
    left_over : list of str
        Files that no job makes.
    """

    num_adopted: int = 0
    refused: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)


def judge(snakefile: str, config: dict[str, Any], unsettled: set[str]) -> Judgement:
    """Judge the outputs of every job in the order in which jobs depend on each other.

    What a killed job was writing here stays: Snakemake knows that it is incomplete, and makes it
    again.
    """
    found = Judgement()
    contents: dict[str, str | None] = {}
    unusable: set[str] = set()
    seen: set[str] = set()
    with job_graph(snakefile, config) as graph:
        persistence = graph.workflow.persistence
        for one in jobs_of(graph):
            seen.update(one.outputs)
            for path in one.inputs:
                # An input that no job makes.
                if path not in contents:
                    contents[path] = content_of(path) if Path(path).is_file() else None
            expected = one.fingerprint(contents)
            origins = _matching_origins(one, expected)
            present = [path for path in one.outputs if Path(path).is_file()]
            mine = [path for path in present if path in unsettled]
            if mine and all(path in origins for path in present):
                asyncio.run(persistence.finished(one.job))
                for path in present:
                    origins[path].write(path)
                found.num_adopted += len(mine)
            elif mine:
                foreign = _foreign(mine)
                incomplete = {str(path) for path in asyncio.run(persistence.incomplete(one.job))}
                unusable.update(foreign)
                found.refused += [path for path in foreign if path not in incomplete]
            for path in one.outputs:
                contents[path] = _content(path, origins, path in unusable)
    found.left_over = sorted(unsettled - seen)
    return found


def _matching_origins(one: Job, expected: str | None) -> dict[str, Origin]:
    """The origin of each output, if it has the expected fingerprint and belongs to the file."""
    found = {}
    for path in one.outputs:
        is_there = Path(path).is_file()
        content = content_of(path) if is_there else None
        origins = [tracked_origin(path), local_origin(path) if is_there else None]
        for origin in origins:
            if origin is None or (origin.rule, origin.fingerprint) != (one.job.rule.name, expected):
                continue
            if content in (None, origin.content):
                found[path] = origin
    return found


def _foreign(paths: Iterable[str]) -> list[str]:
    """Find the files that were not written here; restore the record of the others."""
    found = []
    for path in paths:
        local = local_origin(path)
        if local is not None:
            local.write(path)
        else:
            found.append(path)
    return found


def _content(path: str, origins: dict[str, Origin], is_unusable: bool) -> str | None:
    """The digest of an output, or the one that it will have when built; None if not known."""
    if Path(path).is_file() and not is_unusable:
        return content_of(path)
    return origins[path].content if path in origins else None


@contextlib.contextmanager
def job_graph(
    snakefile: str, config: dict[str, Any], configfiles: Sequence[Path] = ()
) -> Iterator[Any]:
    """Build the graph of every job through Snakemake's API.

    The graph and its records are private to Snakemake: hence its pinned version, and a test.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        ExecutionSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
    )

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=config, configfiles=configfiles),
            snakefile=Path(snakefile),
        )
        # As in profiles/default: with records without checksums everything would run again.
        settings = DAGSettings(targets={"all"}, forceall=True, max_checksum_file_size=2 * 10**9)
        with contextlib.redirect_stdout(io.StringIO()):
            # Builds the graph, and prints the least of the methods that do.
            workflow.dag(settings).printfilegraph()
        workflow._workflow.execution_settings = ExecutionSettings()
        yield workflow._workflow.dag


def jobs_of(graph: Any) -> Iterator[Job]:
    """The jobs that have outputs, each after those that it depends on."""
    order = TopologicalSorter({job: set(graph.dependencies[job]) for job in graph.jobs})
    for job in order.static_order():
        if job.output:
            yield Job(job, [str(path) for path in job.output], [str(path) for path in job.input])


def main() -> None:
    """Judge the files that `settle` has passed on, in the current folder."""
    given = json.load(sys.stdin)
    found = judge(sys.argv[1], given["config"], set(given["unsettled"]))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    with one_line_errors():
        main()
