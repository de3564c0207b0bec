"""Three tiny steps for tests of the jobs room. As a script this file is the worker, and each of the steps.

A run's parameters say what each step does; `ok` where they say nothing:

    ok         ends well
    refuse     fails for good, until the project has a file `mended`
    flaky N    fails N times in a way that may pass
    die        is killed by a signal
    hang       starts a child that hangs, and hangs, unless the project has a file `let-go`
    eat N      fills N megabytes
    read STEP  says what that step has published

Every step that ends well publishes a line with its name and its run.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from interlock.core.errors import RecipeFailed, Unavailable
from interlock.core.lifeline import tie_to_parent
from interlock.jobs.port import EXIT_REFUSED, EXIT_RETRY, StepSpec, write_error

STEPS = (
    StepSpec("extract", interval_seconds=0.1),
    StepSpec("train", interval_seconds=0.2, backoff=3.0, timeout_seconds=float(os.environ.get("TINY_TIMEOUT", "60"))),
    StepSpec("register", interval_seconds=60.0),
)
SCRIPT = str(Path(__file__).resolve())


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def step(run_id: str, name: str, folder: Path) -> int:
    tie_to_parent()
    control = sqlite3.connect(".interlock/control.db")  # not our own records: they cost a third of a second to import
    [(spec,)] = control.execute("select spec from runs where id = ?", [run_id])
    control.close()
    behaviour = json.loads(spec)["parameters"].get(name, "ok")
    (folder / "scratch").write_text("half a model")
    say(f"{name} is here")
    match behaviour.split():
        case ["refuse"] if not Path("mended").exists():
            write_error(folder, RecipeFailed("your recipe raised ValueError", next="mend recipe.py"))
            return EXIT_REFUSED
        case ["flaky", times] if len(list(folder.parent.glob(f"{name}-*"))) <= int(times):
            write_error(folder, Unavailable("the warehouse is locked"))
            return EXIT_RETRY
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["hang"] if not Path("let-go").exists():
            grandchild = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
            say(f"hanging: {os.getpid()} {grandchild.pid}")
            threading.Event().wait()
        case ["eat", megabytes]:
            assert len(b"x" * (int(megabytes) << 20))
        case ["read", other]:
            say((folder.parent / other / "made").read_text())
    (folder.parent / name).mkdir(exist_ok=True)
    (folder.parent / name / "made").write_text(f"{name} of {run_id}")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "step":
        sys.exit(step(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
    from interlock.processes.worker import main

    sys.exit(main(STEPS, [sys.executable, "-W", "error", SCRIPT, "step"]))
