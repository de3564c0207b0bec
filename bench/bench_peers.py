"""Our whole online path (A/B split, parameters, durable log) against model servers that have none of these. Needs `wrk`.

The same pipeline, the same scikit-learn, thread pools of one thread for everybody. Peers live in environments of their own under
`.venv-peers/`, made when missing. One server runs at a time; every round starts each anew and puts it under each load.
    python -m bench.bench_peers [--peers MLServer,KServe,BentoML,FastAPI,Bare] [--rounds 3] [--seconds 4]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.bench_online import load, written
from bench.open_loop import open_loop
from bench.project import COMMAND, MODEL, WIDTH, body, free_ports, rows, served
from bench.report import publish, spread
from interlock.core.project import Project
from interlock.model import package
from interlock.model.runtimes import sklearn
from interlock.registry.packages import PackageStore

ROOT = Path(__file__).parents[1]
OURS = {"Interlock, 1 gateway": 1, "Interlock, 2 gateways": 2}
LOADS = ((1, 1), (1, 16), (1, 64), (1, 256), (100, 16), (1000, 1))
"""Rows a request, connections."""
PEAK, OPEN = (1, 64), (1, 0)
"""Besides in an open loop: Poisson arrivals at seven tenths of what our own gateway bears at `PEAK` in the same round."""
COUNTS = sorted({count for count, _ in LOADS})
PINNED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PINS = {
    "MLServer": "mlserver==1.7.1 mlserver-sklearn==1.7.1 uvloop==0.21.0 scikit-learn==1.9.1",
    "KServe": "kserve==0.21.0 scikit-learn==1.9.1",
    "BentoML": "bentoml==1.4.39 scikit-learn==1.9.1",
    "FastAPI": "fastapi==0.165.0 uvicorn[standard]==0.54.0 scikit-learn==1.9.1",
    "Bare": "granian==2.8.7 uvloop==0.23.0 msgspec==0.22.0 scikit-learn==1.9.1",
}
"""`Bare` is no peer but the limit of the machine: see `bench/peers/bare_path.py`."""
PATIENCE_SECONDS = 60
NUMBERS = {
    "requests/s": "rate",
    "p50 ms": "p50",
    "p99 ms": "p99",
    "CPU ms a request": "cpu",
    "memory MB": "memory",
    "first answer s": "first",
}


@dataclass(frozen=True)
class Server:
    """How one server starts, is asked, and answers; `truth`: the model's own P(positive) by rows a request and answer."""

    command: tuple[str, ...]
    directory: Path
    environment: dict[str, str]
    url: str
    ask: Callable[[int], str]
    scores: Callable[[Any], list[float]]
    truth: Callable[[int, Any], list[float]]


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description="Our online path against other model servers.")
    parser.add_argument("--peers", default=",".join(PINS), help="which of them, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    options = parser.parse_args()
    names = options.peers.split(",")
    if strangers := set(names) - set(PINS):
        parser.error(f"no such peer: {', '.join(sorted(strangers))}; there are {', '.join(PINS)}")
    os.environ.update(PINNED)
    runs: dict[tuple[str, tuple[int, int]], list[dict[str, float]]] = {}
    servers: dict[str, Server] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in itertools.product(range(options.rounds), (*OURS, *names)):
            print(f"round {number + 1}: {name}", file=sys.stderr)
            try:
                if name not in servers and not failed.get(name):
                    servers[name] = ours(Path(folder) / name, OURS[name]) if name in OURS else peer(Path(folder) / name)
                if name in servers:
                    peak = runs[next(iter(OURS)), PEAK][-1]["rate"] if name not in OURS else 0.0
                    for one, run in visit(servers[name], Path(folder) / f"{name}.log", options.seconds, peak):
                        runs.setdefault((name, one), []).append(run)
            except (RuntimeError, OSError) as error:
                failed[name] = str(error)
    lines = []
    for one, name in itertools.product((*LOADS, OPEN), (*OURS, *names)):
        found = runs.get((name, one), [])
        numbers = {title: spread([run[key] for run in found]) if found else "-" for title, key in NUMBERS.items()}
        label = name if name in OURS else f"{name} {PINS[name].split()[0].partition('==')[2]}"
        known = {"rows": one[0], "connections": one[1] or "open loop", "server": label}
        lines.append(known | numbers | {"failed": failed.get(name, "")})
    publish("peers", lines)


def ours(folder: Path, gateways: int) -> Server:
    """A project with a champion and a challenger at 20 %, deployed and stopped again: `up` then serves both."""
    with served(folder, gateways=gateways) as found:
        pass

    def truth(count: int, answer: Any) -> list[float]:
        """What scikit-learn says of the version that answered, whether or not that one was compiled."""
        digest = answer["parameters"]["package_digest"]
        model = sklearn.load(package.verify(PackageStore(Project(folder).packages).find(digest), digest).files)
        return model.predict_proba(pd.DataFrame(rows(count), columns=[f"x{i}" for i in range(WIDTH)]))[:, 1].tolist()

    return Server((*COMMAND, "up"), folder, found.environment, found.infer, body, _tensor, truth)


def peer(folder: Path) -> Server:
    """The peer that the folder is named for, its model trained in its own environment; that is made if it is missing."""
    name, home = folder.name, ROOT / ".venv-peers" / folder.name.lower()
    programs, stamp, pins = home / "bin", home / "pins", PINS[folder.name]
    if not stamp.exists() or stamp.read_text() != pins:
        print(f"installing {pins}", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins.split())
        stamp.write_text(pins)
    folder.mkdir()
    _run(str(programs / "python"), "-m", "bench.peers.train", str(folder), *map(str, COUNTS))
    answers = json.loads((folder / "answers.json").read_text())
    ports = free_ports(3)
    url, model = f"http://127.0.0.1:{ports[0]}", str(folder / "model.joblib")
    infer = (f"{url}/v2/models/{MODEL}/infer", body, _tensor)
    predict = (f"{url}/predict", lambda count: json.dumps({"rows": rows(count).tolist()}), list)
    serve, *talk = {
        "MLServer": (f"mlserver start {folder}", *infer),
        "KServe": (
            f"python kserve_model.py --http_port {ports[0]} --workers 2 --enable_grpc false"
            f" --enable_latency_logging false --log_config_file {folder}/logging.json",
            *infer,
        ),
        "BentoML": (f"bentoml serve bento_service:Bench --host 127.0.0.1 --port {ports[0]}", *predict),
        "Bare": (f"python bare_path.py {ports[0]}", *infer),
        "FastAPI": (f"uvicorn fastapi_app:app --workers 2 --no-access-log --port {ports[0]}", *predict),
    }[name]
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    parameters = {"uri": model, "extra": {"predict_fn": "predict_proba"}}
    files: dict[str, dict[str, Any]] = {
        "settings": {"debug": False, "host": "127.0.0.1", "parallel_workers": 2, **listen},
        "model-settings": {"name": MODEL, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": parameters}
        | {"max_batch_size": 64, "max_batch_time": 0.005},
        "logging": {"version": 1, "loggers": {"uvicorn.access": {"level": "WARNING"}}},  # KServe's only switch for it
    }
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    program, *words = serve.split()
    own = {"MODEL_FILE": model, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "BENTOML_DO_NOT_TRACK": "True"}
    environment = {**os.environ, **own, "BENTOML_HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    command = (str(programs / program), *words)
    return Server(command, ROOT / "bench" / "peers", environment, *talk, lambda count, _: answers[str(count)])


def visit(server: Server, log: Path, seconds: int, peak: float) -> Iterator[tuple[tuple[int, int], dict[str, float]]]:
    """Start it, check its answers, put it under one load after the other, stop it; the loads and what was measured.

    `peak`: requests/s of which the open loop takes seven tenths; 0 = its own.
    Raises RuntimeError, or OSError for a refused request: it did not start, answered wrongly, or failed under load.
    """
    script = log.with_suffix(".lua")
    with running(server, log) as (root, first):
        for count in COUNTS:
            answer = _ask(server, count)
            scores, truth = server.scores(answer), server.truth(count, answer)
            if len(scores) != count or not np.allclose(scores, truth, rtol=1e-9, atol=0):
                raise RuntimeError(f"{count} rows: answered {scores[:2]}, the model itself says {truth[:2]}")
        for number, one in enumerate((LOADS[1], *LOADS, OPEN)):
            written(server.ask(one[0]), script)
            time.sleep(1)  # a server still works on what the load before has left behind
            before, _ = usage(root)
            if one == OPEN:
                run = open_loop(server.url, server.ask(one[0]), 0.7 * peak, seconds)
            else:
                run = load(server.url, one[1], script, seconds)
            after, memory = usage(root)
            if one == PEAK and not peak:
                peak = run["rate"]
            if number:  # the first has warmed it up
                yield one, run | {"cpu": 1000 * (after - before) / run["requests"], "memory": memory, "first": first}


@contextlib.contextmanager
def running(server: Server, log: Path) -> Iterator[tuple[int, float]]:
    """The started server: its process id, and seconds from start to first answer. Its processes end with the block."""
    began = time.monotonic()
    with log.open("wb") as out:
        root = subprocess.Popen(server.command, cwd=server.directory, env=server.environment, stdout=out, stderr=out)
    try:
        while True:
            with contextlib.suppress(OSError):  # not yet
                _ask(server, 1)
                break
            if root.poll() is not None or time.monotonic() > began + PATIENCE_SECONDS:
                end = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise RuntimeError(f"no answer after start: {end}")
            time.sleep(0.02)
        yield root.pid, time.monotonic() - began
    finally:
        handles = []
        for pid in tree(root.pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                handles.append(os.pidfd_open(pid))  # a number may be given away again, a handle not
        root.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            root.wait(PATIENCE_SECONDS)
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], PATIENCE_SECONDS)
            os.close(handle)
        root.wait()


def tree(root: int) -> list[int]:
    """Process ids of `root` and all its descendants."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # its thread has ended
                found += map(int, children.read_text().split())
    return found


def usage(root: int) -> tuple[float, float]:
    """CPU seconds until now and resident MB of a process tree; memory that its processes share is counted once."""
    ticks, kilobytes = 0, 0
    for pid in tree(root):
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        kilobytes += int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
    return ticks / os.sysconf("SC_CLK_TCK"), kilobytes / 1000


def _ask(server: Server, count: int) -> Any:
    request = urllib.request.Request(server.url, server.ask(count).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def _tensor(answer: Any) -> list[float]:
    """P(positive) of an Open Inference answer: the last column of its first output."""
    output = answer["outputs"][0]
    return np.reshape(output["data"], (output["shape"][0], -1))[:, -1].tolist()


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        end = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise RuntimeError(f"{' '.join(command[1:4])} ended with {done.returncode}: {end}")


if __name__ == "__main__":
    main()
