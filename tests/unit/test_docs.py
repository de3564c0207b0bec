"""The reference cannot go stale: what can be typed, set, raised or queried stands in docs/reference."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

import interlock
from interlock.cli import build
from interlock.cli.commands import COMMANDS, Command
from interlock.core.errors import InterlockError
from interlock.core.http import GRPC, STATUS
from interlock.core.settings import Settings
from interlock.gateway.metrics import Metrics, Snapshot
from interlock.gateway.parameters import NAMES
from interlock.predlog.record import Heartbeat, Prediction
from interlock.predlog.rows import heartbeat_table, prediction_tables
from interlock.store.tables import metadata
from interlock.warehouse.ducklake import open_warehouse

DOCS = Path(__file__).parents[2] / "docs"
GATEWAY = "01a20445-6d37-7000-b803-f170194e4196"
COMMAND_NAMES = [command.name for command in COMMANDS]


@cache
def page(name: str) -> str:
    return (DOCS / "reference" / name).read_text()


def sections(name: str, mark: str) -> dict[str, str]:
    """Heading → text below it."""
    found = re.split(rf"^{mark} (.+)$", page(name), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("command", COMMANDS, ids=COMMAND_NAMES)
def test_every_command_and_flag_is_documented(command: Command) -> None:
    section = sections("cli.md", "###").get(f"`interlock {command.name}`")
    assert section is not None, f"docs/reference/cli.md has no section for interlock {command.name}"
    assert command.help in section
    app = build()
    for word in command.name.split():
        app = app[word]
    for argument in app.assemble_argument_collection():
        if argument.parameter.parse is not False:
            assert f"* `{argument.names[0]}`" in section


def test_no_command_is_documented_that_is_gone() -> None:
    assert set(sections("cli.md", "###")) == {f"`interlock {name}`" for name in COMMAND_NAMES}


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_every_json_answer_is_documented(name: str) -> None:
    assert f"`{name}`" in page("json.md") or f"`{name} --" in page("json.md")


def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs inside a type, itself included."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for inner in get_args(kind):
        yield from structs(inner)


def settings_of(kind: type[msgspec.Struct]) -> Iterator[str]:
    """Every key, also of the tables inside."""
    for name, hint in get_type_hints(kind).items():
        yield name
        for inner in structs(hint):
            yield from settings_of(inner)


@pytest.mark.parametrize("name", sorted(set(settings_of(Settings))))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in page("settings.md")


def codes(root: type[InterlockError] = InterlockError) -> set[str]:
    return {root.code}.union(*(codes(child) for child in root.__subclasses__()))


def test_every_error_is_documented_with_its_status() -> None:
    for module in pkgutil.walk_packages(interlock.__path__, "interlock."):
        if ".migrations." not in module.name and not module.name.startswith("interlock.processes."):
            importlib.import_module(module.name)
    told = dict(re.findall(r"^\| `(\w+)` \| (\d*) ?\|", page("errors.md"), flags=re.MULTILINE))
    assert codes() - told.keys() == set()
    for kind, status in STATUS.items():
        assert told[kind.code] == str(status), kind.code
    assert dict(re.findall(r"^\| (\d+) \| `(\w+)` \|$", page("errors.md"), flags=re.MULTILINE)) == {
        str(status): code for status, code in GRPC.items()
    }


def test_every_column_of_the_warehouse_is_documented(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    one = Prediction(
        prediction_id="01a20445-6d37-7000-b803-f170194e4195", request_id="", endpoint="x", received_at=0, event_time=0,
        unit_id="", unit_source="request", experiment="", phase=1, arm="champion", propensity=1.0, model="m", version=1,
        package_digest="", route_revision=1, outcome="answered", reason="", latency_us=1, model_us=1, seq=1, rows=1,
        inputs=[], outputs=[],
    )  # fmt: skip
    beat = Heartbeat(GATEWAY, 0, {"x": 1}, True)
    warehouse.append({**prediction_tables([(GATEWAY, one)], {}), "gateways": heartbeat_table([beat])}, {})
    log = {table.name: table.columns for table in warehouse.tables()}
    warehouse.close()
    text = {name.partition("<")[0].strip("`"): body for name, body in sections("tables.md", "###").items()}
    for name, columns in log.items():
        kind = name.removeprefix("interlock.").removesuffix("x")
        inherited = log["interlock.predictions_x"] if kind == "outcomes_" else {}
        for column in columns.keys() - inherited.keys():
            assert f"`{column}`" in text[kind], f"{name}.{column}"


@pytest.mark.parametrize("table", metadata.tables.values(), ids=lambda table: table.name)
def test_every_table_of_the_control_database_is_documented(table: Any) -> None:
    (row,) = re.findall(rf"^\| `{table.name}` \| (.*) \|$", page("tables.md"), flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [column.name for column in table.columns]


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_metric_is_documented() -> None:
    text = Metrics().text(Snapshot(0, {}, {}, []))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert [name for name in names if f"`{name}`" not in page("metrics.md")] == []


def test_every_parameter_is_documented() -> None:
    assert [name for name in NAMES if f"| `{name}` |" not in page("parameters.md")] == []
