"""A stand-in for the API server of Kubernetes, on loopback: a Job is a process of this machine.

It answers what snakemake-executor-plugin-kubernetes asks. A pod has an empty folder of its own, and
the environment that its secret says; mounted volumes are folders of this machine. `evict` kills the
processes of a pod, as a node does that runs out of memory or is drained.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_TIME = "2030-01-01T00:00:00Z"


class Cluster:
    """Jobs and secrets.

    Parameters
    ----------
    folder : Path
        For the pods' folders and logs.
    path : str
        $PATH of the pods: the container image.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.folder, self.path = folder, path
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.evicted: set[str] = set()
        self.on_start: Callable[[str], None] = lambda _: None

    def create_secret(self, secret: dict[str, Any]) -> None:
        """Keep the values of a secret."""
        values = secret.get("data") or {}
        decoded = {key: base64.b64decode(value).decode() for key, value in values.items()}
        self.secrets[secret["metadata"]["name"]] = decoded | (secret.get("stringData") or {})

    def create_job(self, job: dict[str, Any]) -> None:
        """Start the pod of a job."""
        name, container = job["metadata"]["name"], self.container(job)
        folder = self.folder / name
        (folder / "workdir").mkdir(parents=True)
        environment = {"PATH": self.path, "HOME": str(folder)}
        for entry in container.get("env") or []:
            source = entry["valueFrom"]["secretKeyRef"]
            environment[entry["name"]] = self.secrets[source["name"]][source["key"]]
        with (folder / "log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=folder / "workdir",
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.jobs[name] = job
        self.on_start(name)

    @staticmethod
    def container(job: dict[str, Any]) -> dict[str, Any]:
        """Return the container of a job's pod; the plugin writes it beside the template."""
        found = job["spec"].get("containers") or job["spec"]["template"]["spec"]["containers"]
        container: dict[str, Any] = found[0]
        return container

    def evict(self, name: str) -> None:
        """Kill the processes of a pod; its folder is gone."""
        self.evicted.add(name)
        os.killpg(self.processes[name].pid, signal.SIGKILL)

    def stop(self) -> None:
        """End every pod."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def status(self, name: str) -> dict[str, int]:
        """Return the status of a job."""
        code = self.processes[name].poll()
        return {} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}

    def pods(self, name: str) -> list[dict[str, Any]]:
        """List the pod of a job."""
        code = self.processes[name].poll()
        ended = {"terminated": {"exitCode": code if code == 0 else 137}}
        state = {"running": {"startedAt": _TIME}} if code is None else ended
        container = {
            "name": "snakemake", "image": "image", "imageID": "image", "ready": code is None,
            "restartCount": 0, "state": state,
        }  # fmt: skip
        return [{"metadata": {"name": f"{name}-pod"}, "status": {"containerStatuses": [container]}}]


def serve(cluster: Cluster) -> ThreadingHTTPServer:
    """Serve the API on a free port of loopback, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, value: Any, code: int = 200) -> None:
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(code)
            kind = "text/plain" if isinstance(value, str) else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def read(self) -> Any:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return json.loads(body) if body else None

        def do_POST(self) -> None:
            body = self.read()
            if self.path.endswith("/secrets"):
                cluster.create_secret(body)
            elif self.path.endswith("/jobs"):
                cluster.create_job(body)
                body["status"] = {}
            self.answer(body, 201)

        def do_GET(self) -> None:
            if found := re.search(r"/jobs/([^/?]+)(/status)?$", self.path):
                job = cluster.jobs.get(found[1])
                if job is not None:
                    return self.answer(job | {"status": cluster.status(found[1])})
            if found := re.search(r"labelSelector=job-name%3D([^&]+)", self.path):
                items = cluster.pods(found[1])
                return self.answer({"kind": "PodList", "apiVersion": "v1", "items": items})
            if found := re.search(r"/pods/([^/]+)-pod/log", self.path):
                return self.answer((cluster.folder / found[1] / "log").read_text())
            return self.answer({"kind": "Status", "code": 404, "message": "not found"}, 404)

        def do_DELETE(self) -> None:
            self.read()
            found = re.search(r"/jobs/([^/?]+)", self.path)
            if found and found[1] in cluster.processes:
                process = cluster.processes[found[1]]
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
            self.answer({"kind": "Status", "status": "Success"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def write_kubeconfig(path: Path, port: int) -> None:
    """Write the file that $KUBECONFIG names."""
    cluster = {"name": "stand-in", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "stand-in", "context": {"cluster": "stand-in", "user": "nobody"}}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "nobody", "user": {"token": "none"}}],
                "current-context": "stand-in",
            }
        )
    )
