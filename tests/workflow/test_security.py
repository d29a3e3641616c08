"""What jobs may do: write inside the project only, and run no code that a file holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# The work of some jobs under a hook that sees every file that is written, renamed or removed.
WATCHED = """
import os, sys
from hesspipe.data.dataset import write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.experiments.spectra import extract_spectrum
from hesspipe.experiments.training import TrainingRun
from hesspipe.figures import endpoints
from hesspipe.plots import style
from hesspipe.tables.store import read_result, write_result

CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2,
           "os.symlink": 2, "os.truncate": 1, "os.chmod": 1, "shutil.rmtree": 1}

def watch(event, arguments):
    if event in ("pickle.find_class", "os.system", "subprocess.Popen"):
        print(event, arguments[0], file=sys.stderr)
    names = arguments[: CHANGES.get(event, 0)]
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        names = arguments[:1]
    for name in names:
        if not isinstance(name, int):
            print(event, os.path.abspath(os.fsdecode(name)), file=sys.stderr)

sys.addaudithook(watch)
open(sys.argv[1], "w").close()
data = dict(kind="gaussian_clusters", num_clusters=2, cluster_std=1.0, num_features=3,
            center_low=-1.0, center_high=1.0, num_train=9, num_test=5, seed=0)
model = dict(kind="mlp", hidden_widths=[3], activation="relu", initial_std=0.1)
training = dict(algorithm="gd", step_size=0.1, num_steps=2, record_every=1, checkpoint_every=2,
                dtype="float64")
write_dataset(make_dataset(**data), "results/data.safetensors")
run = TrainingRun(path_to_dataset="results/data.safetensors", experiment="small", seed=0,
                  model=model, training=training)
with run.lock():
    write_result(run.train(progress=False), "results/history.parquet")
    run.collect_checkpoints(["results/step0.safetensors", "results/step2.safetensors"])
for step in (0, 2):
    spectrum = extract_spectrum(
        path_to_dataset="results/data.safetensors",
        path_to_checkpoint=f"results/step{step}.safetensors", model=model, matrix="hessian",
        zero_tolerance=1e-10)
    write_result(spectrum, f"results/step{step}.parquet")
figure = endpoints.make_figure(
    [read_result(f"results/step{step}.parquet") for step in (0, 2)],
    {"kind": "endpoints", "num_largest": 3})
style.save(figure, "figures/ends.pdf", "figures/ends.png")
"""


def test_jobs_write_inside_the_project_only_and_load_no_code_from_files(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside.txt"
    scratch = tmp_path / "scratch"  # which torch and Python take for temporary files
    project.mkdir()
    scratch.mkdir()
    # torch stores its choice of a cache in the environment of this process: the jobs choose anew.
    inherited = {name: value for name, value in os.environ.items() if "CACHE_DIR" not in name}
    environment = inherited | {
        "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "HESSPIPE_DEVICE": "cpu",
        "TMPDIR": str(scratch),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(outside)],
        cwd=project, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    events = done.stderr.splitlines()
    inside = [event for event in events if f" {project}/" in event]
    allowed = (f" {project}/", f" {scratch}/", " /dev/null")
    others = [event for event in events if not any(place in event for place in allowed)]
    # The jobs' changes, and the one that shows that the hook sees what is outside.
    assert others == [f"open {outside}"]
    written = {event.split()[1] for event in inside}
    for name in ("results/step2", "results/history", "figures/ends"):
        assert any(f"{project}/{os.path.dirname(name)}/" in path for path in written)
        assert any(os.path.basename(name) in path for path in written)


@pytest.mark.parametrize("folder", ["hesspipe", "scripts", "rules"])
def test_sources_name_no_function_that_runs_text_or_loads_objects(folder: str) -> None:
    unsafe = re.compile(
        r"^\s*(import|from) (pickle|shelve|marshal|dill|joblib|cloudpickle)\b"
        r"|(?<![\w.\"'])(eval|exec|compile)\(|\bos\.(system|popen)\(|shell=True"
        r"|\btorch\.load\((?!\{)(?!.*weights_only=True)|allow_pickle=True|yaml\.(unsafe_load|full_load|Loader)\b"
        r"|read_pickle\(|\bshell:",
        re.MULTILINE,
    )
    found = {
        f"{path.relative_to(REPOSITORY)}: {match.group().strip()}"
        for path in (REPOSITORY / folder).rglob("*.*")
        if path.suffix in (".py", ".smk")
        for match in unsafe.finditer(path.read_text(encoding="utf-8"))
    }
    # It copies objects of the caller in memory, as copy.deepcopy does, and reads no file.
    assert found - {"hesspipe/objective/whole_batches.py: import pickle"} == set()
