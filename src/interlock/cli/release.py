"""The commands that release: deploy, traffic, promote, rollback, retire, params. Each is a person's step, signed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, acting
from interlock.cli.output import Columns, Reply, items
from interlock.cli.session import Flags, Session
from interlock.cli.sign import changed, told
from interlock.core.assignment import BUCKETS, share
from interlock.core.clock import SystemClock, from_us, iso
from interlock.core.errors import Usage
from interlock.core.project import Project
from interlock.model.package import verify
from interlock.registry.gateways import read_live
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore
from interlock.release.arms import parse_percent
from interlock.release.changes import Terms
from interlock.release.keys import ARM, Keys
from interlock.release.obeyed import wait_until_obeyed
from interlock.release.users import trust_of

if TYPE_CHECKING:
    from interlock.release.rollout import Outcome, Rollout

Why = Annotated[str, Parameter(name="--reason", help="Goes into the signed document and the audit trail.")]
KeepShadow = Annotated[
    bool, Parameter(negative=(), help="The champion before stays on as a shadow: see `interlock realised`.")
]
NoWait = Annotated[bool, Parameter(help="Do not wait until the gateways obey.")]
Evidence = Annotated[str, Parameter(name="--diff", help="Digest of the decision diff of exactly this change.")]
Emergency = Annotated[
    str, Parameter(name="--override", help="Why not to wait for the quorum: an admin signs too, and it ends by itself.")
]


def deploy(
    version: str,
    /,
    *,
    session: Session,
    to: str,
    as_: Annotated[tuple[str, ...], Parameter(name="--as", help="The arm; again with NAME for who acts.")],
    weight: str = "",
    replicas: int = 1,
    keep_shadow: KeepShadow = False,
    no_wait: NoWait = False,
    reason: Why = "",
) -> Reply:
    """Let an approved version serve as an arm of an endpoint, which is made when missing.

    Args:
        version: MODEL:V
        to: The endpoint.
        weight: A challenger's share of the units (default: 10%).
        replicas: Model servers for this arm.
    """
    arms = [name for name in as_ if ARM.fullmatch(name)]
    people = [name for name in as_ if not ARM.fullmatch(name)]
    if len(arms) != 1 or len(people) > 1:
        raise Usage("say which arm, once", next=f"interlock deploy {version} --to {to} --as champion --as NAME")
    if not 1 <= replicas <= 64:
        raise Usage(f"--replicas {replicas}: from 1 to 64")
    if weight and not arms[0].startswith("challenger"):
        raise Usage("--weight is a challenger's; the champion has what the others leave, a shadow is asked everything")
    if keep_shadow and arms[0] != CHAMPION:
        raise Usage("--keep-shadow is of --as champion: nobody else replaces a champion")
    rollout = _rollout(session, people[0] if people else None)
    buckets = parse_percent(weight or "10%")
    outcome = rollout.deploy(
        version, to, arms[0], buckets=buckets, replicas=replicas, keep_shadow=keep_shadow, reason=reason
    )
    return _settled(session, rollout, outcome, no_wait=no_wait, arm=arms[0])


def traffic(
    endpoint: str, /, *shares: str, session: Session, no_wait: NoWait = False, reason: Why = "", as_: As = None
) -> Reply:
    """Share the units out among the arms; as few as possible change arms.

    Args:
        endpoint: The endpoint.
        shares: ARM=PERCENT for every arm; together 100.
    """
    wanted = {name: parse_percent(text) for name, text in _pairs(shares).items()}
    rollout = _rollout(session, as_)
    return _settled(session, rollout, rollout.traffic(endpoint, wanted, reason), no_wait=no_wait)


def promote(
    endpoint: str,
    arm: str = "",
    /,
    *,
    session: Session,
    keep_shadow: KeepShadow = False,
    no_wait: NoWait = False,
    reason: Why = "",
    as_: As = None,
) -> Reply:
    """Make a challenger the champion; the old champion stands by, warm.

    Args:
        endpoint: The endpoint.
        arm: The challenger; may be left out when there is only one.
    """
    rollout = _rollout(session, as_)
    outcome = rollout.promote(endpoint, arm, reason, keep_shadow=keep_shadow)
    return _settled(session, rollout, outcome, no_wait=no_wait, arm=CHAMPION)


def rollback(endpoint: str, /, *, session: Session, no_wait: NoWait = False, reason: Why = "", as_: As = None) -> Reply:
    """Go one step back: the champion before becomes champion again.

    Args:
        endpoint: The endpoint.
    """
    rollout = _rollout(session, as_)
    return _settled(session, rollout, rollout.roll_back(endpoint, reason), no_wait=no_wait, arm=CHAMPION)


def retire(
    endpoint: str, arm: str = "", /, *, session: Session, no_wait: NoWait = False, reason: Why = "", as_: As = None
) -> Reply:
    """Take a challenger out; its units go back to the champion.

    Args:
        endpoint: The endpoint.
        arm: The challenger; may be left out when there is only one.
    """
    rollout = _rollout(session, as_)
    return _settled(session, rollout, rollout.retire(endpoint, arm, reason), no_wait=no_wait)


def params(
    endpoint: str,
    /,
    *changes: str,
    session: Session,
    diff: Evidence = "",
    override: Emergency = "",
    no_wait: NoWait = False,
    reason: Why = "",
    as_: As = None,
) -> Reply:
    """Show the parameters of an endpoint, or change them live. What needs more signatures waits for them as a file.

    Args:
        endpoint: The endpoint.
        changes: NAME=VALUE, as in THRESHOLD=0.4 or ACTIVATE=false.
    """
    if not changes:
        return _parameters(session.project, endpoint)
    rollout = _rollout(session, as_)
    outcome = rollout.change_parameters(endpoint, _pairs(changes), reason, Terms(diff, override))
    if outcome.proposal is not None:
        return told(outcome.proposal)
    gateways = _wait(rollout.project, outcome, no_wait=no_wait)
    return Reply(
        {name: getattr(outcome.route, name) for name in ("endpoint", "revision", "parameters", "risk", "diff")}
        | {"gateways": gateways, "proposal": None},
        (*changed(outcome.before, outcome.route), _obeyed(outcome, gateways, no_wait=no_wait)),
        f"interlock params {endpoint}",
    )


def _rollout(session: Flags, name: str | None) -> Rollout:
    from interlock.release.rollout import Rollout  # here: looking at parameters needs no database

    return Rollout(session.project, acting(name), Keys.find())


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    if len(pairs) != len(words) or not all("=" in word for word in words):
        raise Usage(
            f"{' '.join(words)!r} is no list of NAME=VALUE", next="each name once, as in: champion=90 challenger=10"
        )
    return pairs


def _wait(project: Project, outcome: Outcome, *, no_wait: bool, arm: str = "") -> int:
    """How many gateways obey by now."""
    return 0 if no_wait else len(wait_until_obeyed(project, outcome.route, arm))


def _obeyed(outcome: Outcome, gateways: int, *, no_wait: bool) -> str:
    state = f"revision {outcome.route.revision}" + ("" if outcome.changed else " (nothing had to change)")
    if no_wait:
        return f"{state}, signed"
    return f"{state}, obeyed by {gateways} gateway(s)" if gateways else f"{state}, signed; no gateway runs yet"


def _settled(session: Flags, rollout: Rollout, outcome: Outcome, *, no_wait: bool, arm: str = "") -> Reply:
    """Wait, then tell who serves what and how to ask."""
    project, route = rollout.project, outcome.route
    if arm and not no_wait and read_live(project.gateways):
        session.progress(f"waiting until {arm} answers …")
    gateways = _wait(project, outcome, no_wait=no_wait, arm=arm)
    rows = arm_rows(route)
    curl = curl_line(project, route)
    ask = [curl] if gateways or no_wait else ["interlock up", curl]
    return Reply(
        {
            "endpoint": route.endpoint,
            "revision": route.revision,
            "changed": outcome.changed,
            "phase": route.experiment.phase,
            "arms": rows,
            "standby": f"{route.standby.model}:{route.standby.version}" if route.standby else None,
            "shadows": {one.name: f"{one.model}:{one.version}" for one in route.shadows},
            "gateways": gateways,
            "curl": curl,
            "mlflow": outcome.told or None,
        },
        (
            Columns(rows, ("arm", "version", "label", "percent", "replicas")),
            *([f"stands by: {route.standby.model}:{route.standby.version}"] if route.standby else []),
            *(f"{one.name}: {one.model}:{one.version}, asked everything, answers nobody" for one in route.shadows),
            *(changed(outcome.before, route) if outcome.before.override else ()),
            *(f"rule {one.name} is gone: it does not fit" for one in outcome.before.rules if one not in route.rules),
            *([outcome.told] if outcome.told else []),
            _obeyed(outcome, gateways, no_wait=no_wait),
        ),
        "\n".join(ask),
    )


def arm_rows(route: RouteDocument) -> list[dict[str, Any]]:
    """The arms of an endpoint as rows."""
    return [
        {
            "arm": arm.name,
            "version": f"{arm.model}:{arm.version}",
            "label": arm.label,
            "percent": share(arm.ranges) * 100 / BUCKETS,
            "replicas": len(arm.replicas),
            "package_digest": arm.package_digest,
        }
        for arm in route.arms
    ]


def curl_line(project: Project, route: RouteDocument) -> str:
    """A request that works: a row of the champion's package, sent to this project's gateway."""
    serve = project.settings().serve
    body = msgspec.json.encode({"dataframe_records": [sample_row(project, route)]}).decode()
    url = f"http://{serve.host}:{serve.gateway_port}/endpoints/{route.endpoint}/invocations"
    return f"curl -s {url} -H 'content-type: application/json' -d {shlex.quote(body)}"


def sample_row(project: Project, route: RouteDocument) -> dict[str, Any]:
    """The first golden row of the champion's package, as a client writes it."""
    from interlock.model import oip  # here: it needs numpy

    champion = route.arm(CHAMPION)
    package = verify(PackageStore(project.packages).find(champion.package_digest), champion.package_digest)
    signature = package.manifest.signature
    golden = msgspec.json.decode(package.files["golden.json"], type=oip.InferRequest)
    _, columns = oip.read_columns(signature, golden)
    row = {spec.name: column[0] for spec, column in zip(signature.inputs, columns, strict=True)}
    for spec in signature.inputs:
        if spec.type == "timestamp" and row[spec.name] is not None:
            row[spec.name] = iso(from_us(row[spec.name]))
    return row


def _parameters(project: Project, endpoint: str) -> Reply:
    route = RouteStore(project.routes).read(endpoint, trust_of(project)).at(SystemClock().now())
    pinned: dict[str, list[str]] = {}
    for status in read_live(project.gateways):
        if endpoint in status.endpoints:
            for name, variable in status.endpoints[endpoint].pinned.items():
                value = status.endpoints[endpoint].parameters.get(name)
                pinned.setdefault(name, []).append(f"{value} by {variable} of gateway {status.slot}")
    rows = [
        {"parameter": name, "value": value, "pinned": pinned.get(name, [])}
        for name, value in msgspec.to_builtins(route.parameters).items()
    ]
    return items(rows, ("parameter", "value", "pinned"), empty="", next=f"interlock params {endpoint} THRESHOLD=0.4")
