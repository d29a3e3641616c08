"""profiles/kubernetes against a stand-in for the API server: pods are processes of this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_stand_in import Cluster, serve, write_kubeconfig
from small_project import REPOSITORY

_PLUGINS = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs")
_CONFIG = """
models:
  relu: {kind: mlp, hidden_widths: [3], activation: relu, initial_std: 0.1}
trainings:
  sgd: {algorithm: sgd, batch_size: 10, step_size: 0.1, num_steps: STEPS, record_every: 5,
    checkpoint_every: STEPS, dtype: float64}
datasets:
  clusters: {kind: gaussian_clusters, num_clusters: 2, cluster_std: 1.0, num_features: 4,
    center_low: -10.0, center_high: 10.0, num_train: 30, num_test: 20, seed: 0}
experiments:
  small: {dataset: clusters, seeds: [0], model: relu, training: sgd,
    spectra: {steps: ends, matrices: [hessian]}}
"""
_HISTORY = "results/histories/small/seed0.parquet"

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in _PLUGINS),
    reason="the plugins are not installed: pip install 'hesspipe[kubernetes]'",
)


class Kubernetes:
    """A project, a storage, a container image and the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "project"
        self.shared, self.image = folder / "shared", folder / "image"
        for path in (self.project, self.shared, self.image / "bin"):
            path.mkdir(parents=True)
        for name in ("Snakefile", "rules", "report", "scripts", "profiles", "envs"):
            _copy(REPOSITORY / name, self.project / name)
        for owner in (self.project, self.image):
            _copy(REPOSITORY / "hesspipe", owner / "hesspipe")
        self.program("python", f'PYTHONPATH="{self.image}" exec "{sys.executable}" "$@"')
        self.program("pip", "exit 0")  # the plugin of the storage is there
        self.cluster = Cluster(folder / "pods", f"{self.image / 'bin'}:/usr/bin:/bin")
        self.server = serve(self.cluster)
        write_kubeconfig(folder / "kubeconfig", self.server.server_port)

    def program(self, name: str, text: str) -> None:
        """Put a shell script into the image."""
        path = self.image / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def configure(self, num_steps: int) -> None:
        """Write the configuration, and commit what pods get."""
        _, *rest = (REPOSITORY / "config.yaml").read_text().partition("\nspectrum:")
        defaults = "".join(rest).partition("\nfigures:")[0]
        sections = "random_matrices: {}\ngroups: {}\n"
        ends = "\nfigures: {}\ntables: {}\nclaims: statements.yaml\n"
        text = _CONFIG.replace("STEPS", str(num_steps)) + sections + defaults + ends
        (self.project / "config.yaml").write_text(text)
        (self.project / "statements.yaml").write_text("claims: {}\n")
        for command in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", *command], cwd=self.project, check=True)

    def snakemake(self, target: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a target in pods."""
        home = Path(sys.executable).parent
        environment = os.environ | {
            "KUBECONFIG": str(self.folder / "kubeconfig"), "PYTHONPATH": str(self.project),
            "HESSPIPE_STATE": str(self.shared / "states"), "OMP_NUM_THREADS": "1",
            "HESSPIPE_DEVICE": "cpu", "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        command = [sys.executable, "-m", "snakemake", target, *options]
        command += ["--workflow-profile", "profiles/kubernetes", "--container-image", "hesspipe:1"]
        command += ["--default-storage-prefix", str(self.shared / "results")]
        command += ["--kubernetes-persistent-volumes", f"shared:{self.shared}"]
        command += ["--seconds-between-status-checks", "1"]
        return subprocess.run(
            command, cwd=self.project, env=environment, capture_output=True, text=True, timeout=600
        )

    def result(self, path: str) -> Path:
        """Locate a result in the storage."""
        return self.shared / "results" / path

    def logs(self) -> str:
        """Collect what the pods have printed, and the logs of jobs in the storage."""
        paths = [*self.cluster.folder.glob("*/log"), *self.shared.glob("results/logs/**/*.log")]
        return "\n".join(path.read_text() for path in paths)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    built = Kubernetes(tmp_path)
    yield built
    built.cluster.stop()
    built.server.shutdown()
    built.server.server_close()


def evict_once(kubernetes: Kubernetes) -> None:
    """Evict the first pod that has begun to train, when its first records are written."""
    states = kubernetes.shared / "states" / "training"

    def watch(name: str) -> None:
        for _ in range(6000):
            if any(states.glob("*/step[1-9]*.safetensors")):
                if not kubernetes.cluster.evicted:
                    kubernetes.cluster.evict(name)
                return
            if kubernetes.cluster.processes[name].poll() is not None:
                return
            time.sleep(0.02)

    kubernetes.cluster.on_start = lambda name: threading.Thread(
        target=watch, args=(name,), daemon=True
    ).start()


def test_an_evicted_training_is_resumed_with_equal_bits(kubernetes: Kubernetes) -> None:
    """The checkpoint is that of a local run, and the second pod goes on with the state."""
    kubernetes.configure(num_steps=1500)
    evict_once(kubernetes)
    spectrum = "results/spectra/small/seed0/step1500_hessian.parquet"
    ended = kubernetes.snakemake(spectrum)
    assert ended.returncode == 0, ended.stdout + ended.stderr + kubernetes.logs()
    assert len(kubernetes.cluster.evicted) == 1
    assert kubernetes.result(spectrum).is_file()
    checkpoint = "results/checkpoints/small/seed0/step1500.safetensors"
    local = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", checkpoint],
        cwd=kubernetes.project,
        env=os.environ | {
            "PYTHONPATH": str(kubernetes.project), "HESSPIPE_DEVICE": "cpu", "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert local.returncode == 0, local.stdout + local.stderr
    written = (kubernetes.project / checkpoint).read_bytes()
    assert kubernetes.result(checkpoint).read_bytes() == written
    for job in kubernetes.cluster.jobs.values():
        container = kubernetes.cluster.container(job)
        assert container["image"] == "hesspipe:1"
        assert container["resources"]["limits"]["memory"].endswith("M")
        assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_an_image_with_other_code_is_refused(kubernetes: Kubernetes) -> None:
    kubernetes.configure(num_steps=10)
    with (kubernetes.image / "hesspipe/networks/training.py").open("a") as file:
        file.write("\n_CHANGED = 1\n")
    ended = kubernetes.snakemake(_HISTORY, "--retries", "0")
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr + kubernetes.logs()
    assert "is not the one that Snakemake was started with" in said, said
    assert not kubernetes.result(_HISTORY).exists()
