"""The gate at the model server's door: nothing is loaded before digests and approval are verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interlock.core.clock import Clock
from interlock.core.errors import Corrupt, Expired, InterlockError, NotApproved, RecipeFailed
from interlock.core.trust import TrustRoot
from interlock.model import golden, oip
from interlock.model.columns import pack, unpack
from interlock.model.package import Package, verify
from interlock.model.predictor import Predictor
from interlock.registry.admission import admitted
from interlock.registry.approvals import Approval, Scope, open_approval, require_approval
from interlock.registry.routes import RouteStore

WARM_BATCHES = (1, 2, 16)


def admit(
    directory: Path, approval: Path | None, trust: TrustRoot, scope: Scope, clock: Clock, routes: Path | None = None
) -> tuple[Package, Approval]:
    """Verify the package and the decisions about it (a file, or a folder of them).

    `routes`: one of these that has the package may go on with approvals that have ended, as its ON_EXPIRY says.

    Raises:
        Tampered, NotApproved, FourEyes: the package may not be served.
    """
    package = verify(directory)
    decisions = read_approvals(package.digest, approval, trust)
    author, now = package.manifest.author.name, clock.now()
    try:
        return package, require_approval(decisions, package.digest, author, scope, trust, now)
    except Expired:
        store = RouteStore(routes or Path())
        for name in store.endpoints() if routes else ():
            route = store.read(name, trust).at(now)
            if route.most(package.digest) is not None and route.parameters.on_expiry == "freeze":
                return package, admitted(store, route, package.digest, decisions, author, scope, trust, now)[0]
        raise


def read_approvals(package_digest: str, approval: Path | None, trust: TrustRoot) -> list[Approval]:
    """The verified decisions in a file, or in a folder of them.

    Raises:
        NotApproved: there is none, or its signer may not sign approvals.
        Tampered: altered bytes.
    """
    if approval is None or not approval.exists():
        raise NotApproved(
            f"package {package_digest} comes without an approval",
            next="a reviewer signs it: interlock approve MODEL:V --as NAME --reason R",
        )
    files = sorted(approval.glob("*.dsse.json")) if approval.is_dir() else [approval]
    return [open_approval(file.read_bytes(), trust, f"approval {file.name}") for file in files]


def load(package: Package) -> Predictor:
    """Load a verified package, warm it up and prove that it still gives its golden answers.

    Raises:
        Corrupt: the package has no golden requests, or an answer differs beyond the manifest's tolerance.
        RecipeFailed, PredictionFailed: its code raised, when it was loaded or warmed up.
    """
    try:
        predictor = Predictor(package)
    except (InterlockError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: it would end us without a word
        raise RecipeFailed(
            f"package {package.digest} cannot be loaded: {type(error).__name__}: {error}",
            next="look at the code in the package, train anew, and let it be reviewed",
        ) from error
    known = golden.decode(package.files[golden.FILE])
    signature = predictor.signature
    rows, columns = oip.read_columns(signature, oip.InferRequest(known.inputs))
    for count in WARM_BATCHES:
        some = [column[:count] for column in columns]
        predictor.predict(unpack(signature, pack(signature, some)))
    numbers = predictor.predict(unpack(signature, pack(signature, columns)))
    expected = np.array(known.numbers).reshape(rows, signature.width)
    if not np.allclose(numbers, expected, rtol=package.manifest.rtol, atol=0.0):
        worst = int(np.argmax(np.abs(numbers - expected).max(axis=1)))
        raise Corrupt(
            f"golden request {worst} of package {package.digest}: expected {expected[worst]}, got {numbers[worst]}",
            next="compare the library versions in the manifest with the installed ones",
        )
    return predictor
