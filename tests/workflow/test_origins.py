"""Records of the origin of outputs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hesspipe.errors import DamagedFileError
from hesspipe.workflow import origins
from hesspipe.workflow.origins import Origin, content_of, local_origin, tracked_origin
from hesspipe.workflow.stages import STAGES, origins_of, outputs_on_disk, stage_of

PATH = "figures/one.pdf"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def job(**changes: object) -> SimpleNamespace:
    """A finished job that read one file and wrote another."""
    parts = {
        "rule": "render_figure", "wildcards": {"figure": "one"}, "params": {"config": {"size": 1}},
        "input": ["results/spectra/a.parquet"], "output": [PATH],
    }  # fmt: skip
    return SimpleNamespace(**parts | changes)


@pytest.fixture
def recorded() -> Origin:
    """A job's output and its records."""
    write("results/spectra/a.parquet", "spectrum")
    write(PATH, "figure")
    origins.record_job(job())
    origin = tracked_origin(PATH)
    assert origin is not None
    return origin


def test_record_is_tracked_and_remembered(recorded: Origin) -> None:
    assert recorded.rule == "render_figure"
    assert local_origin(PATH) == recorded
    assert origins.unsettled_outputs() == ["results/spectra/a.parquet"]
    assert origins.recorded_outputs() == [PATH]


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "render_table"},
        {"wildcards": {"figure": "two"}},
        {"params": {"config": {"size": 2}}},
        {"input": []},
    ],
)
def test_fingerprint_depends_on_every_part(recorded: Origin, changes: dict[str, object]) -> None:
    origins.record_job(job(**changes))
    found = tracked_origin(PATH)
    assert found is not None
    assert found.fingerprint != recorded.fingerprint
    assert found.content == recorded.content


def test_fingerprint_depends_on_the_content_of_inputs_and_not_on_times(recorded: Origin) -> None:
    os.utime("results/spectra/a.parquet", (1, 1))
    origins.record_job(job())
    assert tracked_origin(PATH) == recorded
    write("results/spectra/a.parquet", "another")
    origins.record_job(job())
    assert tracked_origin(PATH) != recorded


def test_touched_output_is_still_known(recorded: Origin) -> None:
    os.utime(PATH, (1, 1))
    assert local_origin(PATH) == recorded
    assert PATH not in origins.unsettled_outputs()


def test_replaced_output_is_foreign(recorded: Origin) -> None:
    write(PATH, "forged")  # of the same length
    os.utime(PATH, (1, 1))
    assert local_origin(PATH) is None
    assert PATH in origins.unsettled_outputs()
    assert content_of(PATH) != recorded.content


def test_output_with_another_tracked_record_is_unsettled(recorded: Origin) -> None:
    local = Path(".hesspipe/origins", f"{PATH}.json").read_text()
    Origin("render_figure", recorded.content, "other").write(PATH)
    Path(".hesspipe/origins", f"{PATH}.json").write_text(local)
    assert PATH in origins.unsettled_outputs()


def test_lost_tracked_record_is_restored(recorded: Origin) -> None:
    origins.tracked_path(PATH).unlink()
    assert PATH not in origins.unsettled_outputs()
    assert tracked_origin(PATH) == recorded


@pytest.mark.parametrize("text", ["", "{}", "[]", "not JSON"])
def test_damaged_records_count_as_none(recorded: Origin, text: str) -> None:
    origins.tracked_path(PATH).write_text(text)
    assert tracked_origin(PATH) is None
    Path(".hesspipe/origins", f"{PATH}.json").write_text(text)
    assert local_origin(PATH) is None


def test_local_record_with_a_flipped_bit_counts_as_none(recorded: Origin) -> None:
    path = Path(".hesspipe/origins", f"{PATH}.json")
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (0, 4):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            found = origins.remembered_origin(PATH)
            assert found is None or found == recorded
    path.write_bytes(whole)
    assert origins.remembered_origin(PATH) == recorded


def test_every_file_of_a_stage_is_an_output_but_not_an_unfinished_one() -> None:
    files = ["claims.json", "figures/b.pdf", "figures/a.pdf", "results/spectra/x/step0.parquet"]
    for path in [*files, "figures/.a.pdf.tmp", f"{origins_of('figures')}/a.json", "README.md"]:
        write(path, "")
    assert sorted(outputs_on_disk()) == sorted(files)


def test_folders_of_stages_are_disjoint() -> None:
    folders = [folder for found in STAGES.values() for folder in found]
    assert len(set(folders)) == len(folders)
    for stage, found in STAGES.items():
        assert {stage_of(f"{folder}/x") for folder in found} == {stage}
    with pytest.raises(ValueError, match="path must be in a folder of a stage, got 'docs/x'"):
        stage_of("docs/x")


def test_check_inputs_refuses_a_file_that_is_not_what_its_job_wrote(recorded: Origin) -> None:
    origins.check_inputs([PATH, "hesspipe/files.py", "results/spectra/a.parquet"])
    status = Path(PATH).stat()
    for changed in ("figurf", "other!", "figure\n", ""):
        write(PATH, changed)
        os.utime(PATH, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(DamagedFileError, match=r"one.pdf is damaged.* not the one in .*json"):
            origins.check_inputs([PATH])
    write(PATH, "figure")
    origins.check_inputs([PATH])


def test_check_inputs_refuses_two_results_that_have_changed_places() -> None:
    paths = ["results/spectra/one.parquet", "results/spectra/two.parquet"]
    for path in paths:
        write(path, path)
        origins.record_job(job(input=[], output=[path]))
    origins.check_inputs(paths)
    Path(paths[0]).rename("aside")
    Path(paths[1]).rename(paths[0])
    Path("aside").rename(paths[1])
    for path in paths:
        with pytest.raises(DamagedFileError, match=path):
            origins.check_inputs([path])


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", "[" * 100_000, '{"rule": 1}', "\udcff", "1" * 5000]
)
@pytest.mark.parametrize("which", ["tracked", "local"])
def test_damaged_record_counts_as_none(recorded: Origin, which: str, text: str) -> None:
    path = origins.tracked_path(PATH) if which == "tracked" else origins._local_path(PATH)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert (tracked_origin(PATH) if which == "tracked" else local_origin(PATH)) is None
    # A whole one of the two kinds is enough, or the file is judged.
    assert (PATH in origins.unsettled_outputs()) == (which == "local")
    assert content_of(PATH) == recorded.content
