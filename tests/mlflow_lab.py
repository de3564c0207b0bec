"""A real MLflow server, in an environment of its own (`.venv-mlflow`, made when missing: 780 MB; its pins do not fit ours)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.house import free_port, until

from interlock.core.lifeline import Child

HOME = Path(__file__).parents[1] / ".venv-mlflow"
PINS = (
    "mlflow==3.17.2", "scikit-learn==1.9.1", "skops==0.16.0", "pandas==3.1.1", "xgboost-cpu==3.2.0", "lightgbm==4.7.0",
    "onnx==1.23.2", "onnxruntime==1.32.0",
)  # fmt: skip
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
PATIENCE_SECONDS = 300.0
"""It makes its database first, and is slow at that on a busy machine."""


def environment() -> Path:
    """Its Python."""
    python, stamp = HOME / "bin" / "python", HOME / "pins"
    if not stamp.exists() or stamp.read_text() != "\n".join(PINS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-compile", *PINS], check=True)
        stamp.write_text("\n".join(PINS))
    return python


class Mlflow:
    """The server of a folder, ready."""

    def __init__(self, folder: Path) -> None:
        self.python, self.folder = environment(), folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = (folder / "mlflow.log").open("wb")
        command = [
            str(self.python), "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1",
            "--port", self.url.rpartition(":")[2], "--workers", "1",
        ]  # fmt: skip
        self.child = Child(
            command, environment={**os.environ, **QUIET}, output=self.log.fileno(), stderr=subprocess.STDOUT
        )
        until(self._answers, PATIENCE_SECONDS, "MLflow")

    def _answers(self) -> bool:
        assert self.child.process.poll() is None, (self.folder / "mlflow.log").read_text()
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def run(self, code: str) -> str:
        """What a script that trains there prints."""
        done = subprocess.run(
            [str(self.python), "-c", code],
            cwd=self.folder, env={**os.environ, **QUIET, "MLFLOW_TRACKING_URI": self.url},
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def version(self, name: str, version: int) -> tuple[list[str], dict[str, str]]:
        """Aliases and tags of a registered model."""
        answer = httpx.get(
            f"{self.url}/api/2.0/mlflow/model-versions/get", params={"name": name, "version": version}, timeout=30
        )
        found: dict[str, Any] = msgspec.json.decode(answer.content)["model_version"]
        return found.get("aliases", []), {one["key"]: one["value"] for one in found.get("tags", [])}

    def stop(self) -> None:
        """End it."""
        self.child.stop(10.0)
        self.log.close()
