"""A project made by hand for tests of the online wing: keys, trust root, a small real package, approvals and routes.

Everything is what the product writes, through the product's own functions; only the training pipeline is left out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from interlock.core import signing, trust
from interlock.core.clock import SystemClock, iso
from interlock.core.hashing import digest
from interlock.core.ids import uuid7_text
from interlock.core.lifeline import Child
from interlock.core.policy import Policy
from interlock.core.project import Project
from interlock.core.settings import Mode
from interlock.model import features, oip, package, profile
from interlock.model.columns import Array, Columns, pack, to_lists, unpack
from interlock.model.golden import encode as encode_golden
from interlock.model.manifest import Author, Lineage, Manifest, Runtime, SplitRecord
from interlock.model.predictor import Predictor
from interlock.model.signature import Input, Signature
from interlock.predlog.journal import SegmentReader, segments
from interlock.registry import approvals, gateways
from interlock.registry.gateways import EndpointStatus
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Arm, ExperimentRef, Parameters, RouteDocument, RouteStore, replica_name

SINCE = "2020-01-01T00:00:00.000000Z"
INPUTS = (
    Input("distance", "float"),
    Input("temp", "float", nullable=True),
    Input("stops", "int"),
    Input("carrier", "category", categories=("AA", "B6", "UA")),
    Input("at", "timestamp", zone="America/New_York"),
)
SIGNATURE = Signature(task="binary", inputs=INPUTS, classes=(False, True))
FEATURES = """import pandas as pd


def flight_features(raw):
    if (raw["distance"] == 666.0).any():
        raise ValueError("a cursed distance")
    return pd.DataFrame({
        "distance": raw["distance"], "temp": raw["temp"], "stops": raw["stops"],
        "is_ua": (raw["carrier"] == "UA").astype(float), "hour": raw["at"].dt.hour,
    })


__features__ = flight_features
"""


def rows(count: int, seed: int = 0) -> list[Array]:
    """Random raw rows as arrays."""
    rng = np.random.default_rng(seed)
    temp = rng.normal(15, 8, count).round(1)
    temp[rng.random(count) < 0.1] = np.nan
    return [
        rng.uniform(100, 3000, count).round(1),
        temp,
        rng.integers(0, 4, count),
        np.array(rng.choice(["AA", "B6", "UA"], count), dtype=object),
        1_370_000_000_000_000 + rng.integers(0, 30 * 86_400_000_000, count),
    ]


def body(count: int = 1, seed: int = 0, **parameters: Any) -> dict[str, Any]:
    """An Open Inference Protocol request."""
    inputs = oip.write_inputs(SIGNATURE, to_lists(INPUTS, rows(count, seed)))
    return {"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs}


class House:
    """A project folder with people, packages and routes."""

    def __init__(self, root: Path, mode: Mode = "team") -> None:
        self.project = Project(root)
        self.root_key = signing.generate()
        self.keys = {name: signing.generate() for name in ("ann", "rob", "rhea", "olga")}
        self.revoked: set[str] = set()
        self.revision = 0
        self.policy = Policy()
        self.owners: dict[str, str] = {}
        self.roles: dict[str, tuple[trust.Role, ...]] = {
            "ann": ("author",),
            "rob": ("reviewer",),
            "rhea": ("reviewer",),
            "olga": ("operator",),
        }
        self.mode: Mode = mode
        self.packages_made: list[str] = []
        self.fingerprint = signing.key_id(self.root_key.public_key())
        root.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.grpc_port = free_port()
        self.project.config.write_text(
            'model = "flight-delay"\nrecipe = "recipe:train"\n[extract]\nsql = "select 1"\nid = "id"\n'
            'event_time = "at"\nlabel = "late"\n[inputs]\ndistance = "float"\n'
            f'[trust]\nroot = "{self.fingerprint}"\n[serve]\ngateway_port = {self.port}\n'
            f"grpc_port = {self.grpc_port}\ncontrol_port = {free_port()}\nreserve_mb = 1\n"
        )
        self.write_trust()

    @functools.cached_property
    def client(self) -> httpx.Client:
        """A client for everything of this house; `close` lets go of it."""
        return httpx.Client(timeout=30)

    def close(self) -> None:
        """Let go of the client and of the sockets' folder."""
        self.client.close()
        shutil.rmtree(self.project.sockets, ignore_errors=True)

    def trust_root(self) -> trust.TrustRoot:
        """The content of the trust root."""
        entries = tuple(
            trust.TrustedKey(
                name,
                self.owners.get(name, name),
                signing.key_id(key.public_key()),
                signing.public_text(key.public_key()),
                self.roles[name],
                SINCE,
                SINCE if name in self.revoked else None,
            )
            for name, key in self.keys.items()
        )
        public = signing.public_text(self.root_key.public_key())
        return trust.TrustRoot(1, self.revision, self.project.root.name, self.mode, public, entries, self.policy)

    def write_trust(self) -> None:
        """Sign the next revision of the trust root."""
        self.revision += 1
        self.project.state.mkdir(exist_ok=True)
        self.project.trust.write_bytes(trust.seal_trust(self.trust_root(), self.root_key))

    def package(self, seed: int = 0, features_source: str = FEATURES, more: tuple[Input, ...] = ()) -> str:
        """Train a small real model, publish its package, return the digest. `more`: floats that it wants too, and ignores."""
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from interlock.model.frames import to_frame
        from interlock.model.runtimes import sklearn

        signature = msgspec.structs.replace(SIGNATURE, inputs=(*INPUTS, *more))
        raw = [*rows(400, seed), *(np.arange(400.0) for _ in more)]
        source = features_source.encode()
        frame = features.load_source(source, digest(source))(to_frame(signature.inputs, raw))
        late = (frame["distance"] + 500 * frame["is_ua"] + np.random.default_rng(seed).normal(0, 400, 400)) > 1700
        model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(frame, late)
        stored = sklearn.dump(model)
        runtime = Runtime("sklearn", "model/model.skops", stored.types)
        return self.publish(signature, runtime, stored.files, source, tuple(frame.columns), raw, late.tolist())

    def publish(
        self,
        signature: Signature,
        runtime: Runtime,
        model: dict[str, bytes],
        source: bytes,
        columns: tuple[str, ...],
        raw: list[Array],
        labels: list[Any],
    ) -> str:
        """Publish the package of a model's files and its feature function's source; the digest."""
        source_digest = digest(source)
        split = SplitRecord("time", 7, "sha256:" + "0" * 64, {"train": len(labels)})
        lineage = Lineage("run", "", "select 1", {}, 1, "sha256:0", split, "", "sha256:0", source_digest, {}, None)
        manifest = Manifest(
            1, "flight-delay", signature, runtime, columns, 0.5, 1e-9, "3.11", {},
            Author("ann", signing.key_id(self.keys["ann"].public_key())), iso(SystemClock().now()), lineage, (),
        )  # fmt: skip
        files = {**model, features.FILE: source, "requirements.txt": b""}
        golden = [column[:16] for column in raw]
        predictor = Predictor(package.Package(Path(), "", manifest, files))
        scores = predictor.predict(unpack(signature, pack(signature, checked(signature, raw))))
        files[profile.FILE] = profile.encode(profile.build(signature, raw, labels, scores))
        numbers = predictor.predict(unpack(signature, pack(signature, checked(signature, golden))))
        files["golden.json"] = encode_golden(signature, golden, numbers)
        work = self.project.work / f"new-{uuid7_text()}"
        work.mkdir(parents=True)
        found = package.write(work, manifest, files)
        PackageStore(self.project.packages).publish(work, found)
        return found

    def approve(
        self, found: str, by: str = "rob", decision: Any = "approve", scope: Any = "serve", **more: Any
    ) -> Path:
        """Sign a decision."""
        own = by == "ann"
        predicate = approvals.Predicate(
            decision, scope, by, "ann", "looks right", iso(SystemClock().now()), None, "sha256:0", self_approved=own
        )
        predicate = msgspec.structs.replace(predicate, **more)
        content = approvals.statement("flight-delay", found, predicate)
        return approvals.store_approval(self.project.approvals, content, self.keys[by])

    def route(
        self, arms: dict[str, tuple[str, int]], *, by: str = "olga", replicas: int = 1, **more: Any
    ) -> RouteDocument:
        """Write the next revision: arm → (package, buckets)."""
        store = RouteStore(self.project.routes)
        revision = store.current("flight-delay") + 1
        made, at = [], 0
        for number, (name, (found, count)) in enumerate(arms.items(), 1):
            names = tuple(replica_name(found, i) for i in range(replicas))
            ranges = ((at, at + count),) if count else ()
            made.append(Arm(name, "flight-delay", number, found, f"{number}.0.0-1.00000000", names, ranges))
            at += count
        values: dict[str, Any] = {
            "format": 1, "endpoint": "flight-delay", "revision": revision, "arms": tuple(made),
            "experiment": ExperimentRef("salt", 1, "exp", "tailnum"), "parameters": Parameters(), "author": by,
            "reason": "test", "time": iso(SystemClock().now()), "previous": store.digest_of("flight-delay", revision - 1),
        }  # fmt: skip
        route = RouteDocument(**{**values, **more})
        store.write(route, self.keys[by])
        return route

    def serve(self, found: str, number: int = 0, *more: str, shadow: bool = False) -> Process:
        """A model server for a replica of an arm, or of a shadow."""
        path = self.project.make_sockets() / replica_name(found, number, shadow=shadow)
        more = (*more, "--scope", "shadow") if shadow else more
        return Process(
            "model_server", "--package", str(self.project.packages / found.removeprefix("sha256:")),
            "--approval", str(self.project.approvals / found.removeprefix("sha256:")), "--trust", str(self.project.trust),
            "--root", self.fingerprint, "--socket", str(path), *more,
        )  # fmt: skip

    def gateway(self, slot: int = 0, **environment: str) -> Process:
        """A gateway worker."""
        return Process("gateway", "--project", str(self.project.root), "--slot", str(slot), environment=environment)

    def recorder(self) -> Process:
        """The recorder."""
        return Process("recorder", "--project", str(self.project.root))

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"


def checked(signature: Signature, arrays: list[Array]) -> Columns:
    """Rows as the gateway holds them after checking."""
    inputs = oip.write_inputs(signature, to_lists(signature.inputs, arrays))
    return oip.read_columns(signature, oip.InferRequest(msgspec.convert(inputs, list[oip.Tensor])))[1]


class Process:
    """A real process of the house, tied to this one; `ready()` waits for its word."""

    def __init__(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        read, write = os.pipe()
        command = [sys.executable, "-m", f"interlock.processes.{name}", *arguments]
        try:
            self.child = Child(
                command, environment={**os.environ, **(environment or {})}, output=write, stderr=subprocess.STDOUT
            )
        finally:
            os.close(write)
        self.output = os.fdopen(read, "rb", buffering=0)
        self.text = ""

    def ready(self, word: str = "ready:", seconds: float = 30.0) -> Process:
        """Wait until it says `word`; fail with its output when it ends instead."""
        end = time.monotonic() + seconds
        while word not in self.text:
            left = end - time.monotonic()
            assert left > 0, f"not ready: {self.text}"
            if select.select([self.output], [], [], left)[0]:
                data = self.output.read(65536)
                assert data, f"ended with {self.child.process.wait()}: {self.text}"
                self.text += data.decode()
        return self

    def ended(self, seconds: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        code = self.child.process.wait(seconds)
        self.text += (self.output.read() or b"").decode()
        self.stop()
        return code

    def stop(self) -> int:
        """SIGTERM and wait."""
        code = self.child.stop(30.0)
        self.output.close()
        return code

    def kill(self) -> None:
        """SIGKILL and wait."""
        self.child.process.kill()
        self.child.process.wait()


def obey(house: House, revision: int) -> None:
    """Wait until the gateway obeys a revision and all its arms are live."""

    def obeyed() -> bool:
        live = [one.endpoints.get("flight-delay") for one in gateways.read_live(house.project.gateways)]
        in_force = bool(live) and all(one and one.revision == revision and one.error is None for one in live)
        return in_force and house.client.get(f"{house.url}/v2/models/flight-delay/ready").status_code == 200

    until(obeyed, what=f"revision {revision}")


def status(house: House) -> EndpointStatus:
    """What the first gateway acknowledges."""
    found = msgspec.json.decode((house.project.gateways / "0.json").read_bytes())["endpoints"]["flight-delay"]
    return msgspec.convert(found, EndpointStatus)


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[None]:
    """The process stands still."""
    os.kill(process.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.child.pid, signal.SIGCONT)


def trail(path: Path) -> list[object]:
    """All records in the journals under a folder, oldest segment first."""
    found: list[object] = []
    for segment in segments(path):
        reader = SegmentReader(segment)
        found += [record for record, _ in reader.records(1 << 28)]
        reader.close()
    return found


def free_port() -> int:
    """A port that nobody uses now, nor will another of the processes that run tests: each has ranges of its own."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if (port >> 6) % count == mine:  # not the lowest bits: the kernel gives ports of one parity
                return port


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "condition") -> Any:
    """Poll until the condition holds; what it gave."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Processes for the time of a block."""
    try:
        for process in processes:
            process.ready()
        yield
    finally:
        for process in processes:
            process.stop()
