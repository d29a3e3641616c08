"""Folders that a run cannot use as they are: told before any job, or not needed."""

from __future__ import annotations

from pathlib import Path

from small_project import make_project


def test_folder_with_the_name_of_a_result_is_told_and_no_home_is_needed(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    folder = project.folder / "figures" / "endpoints.pdf"
    folder.mkdir(parents=True)
    leftover = folder.parent / ".gaps.pdf.0.tmp.pdf"
    leftover.write_text("half of")
    # The home folder cannot be made: nothing may be written there.
    said = project.run(
        "env", "HOME=/proc/1/absent", "snakemake", "-n", "figures/endpoints.pdf", check=False
    )
    assert said.endswith("exit 1")
    assert (
        "figures/endpoints.pdf could not be read (it is a folder, and must be a file); it was not "
        "changed. Move it away, then run the same command again" in said
    )
    assert "Traceback" not in said
    assert not leftover.exists()


def test_full_folder_is_told_before_any_job(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    target = "results/datasets/clusters_k2.safetensors"
    # A file that the system writes nothing to stands for a full disk, for root as well.
    project.write(
        "sitecustomize.py",
        "import errno, os\n"
        "true_open = os.open\n"
        "def full(path, flags, *mode, **options):\n"
        "    if 'results/datasets/.' in str(path):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)\n"
        "    return true_open(path, flags, *mode, **options)\n"
        "os.open = full\n",
    )
    said = project.snakemake(target, check=False)
    assert "results/datasets could not be written (No space left on device); no job was" in said
    assert "df -h" in said
    assert "Traceback" not in said
    assert not (project.folder / "logs").exists()
