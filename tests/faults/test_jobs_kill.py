"""Workers that are killed, stopped or orphaned amid a step: runs go on there, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs_lab import SCRIPT, Lab, eventually, gone, story

from interlock.core.lifeline import Child

pytestmark = pytest.mark.faults


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with contextlib.closing(Lab(tmp_path)) as made:
        yield made


def kill(worker: Child) -> None:
    """kill -9, of the worker alone."""
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait()


def let_go(lab: Lab) -> None:
    """From now on no step hangs."""
    (lab.project.root / "let-go").touch()


def test_after_kill_9_the_next_worker_goes_on_at_the_interrupted_step(lab: Lab) -> None:
    worker = lab.worker()
    run_id = lab.submit(train="hang")
    pids = lab.hanging(run_id)
    kill(worker)
    eventually(lambda: all(gone(pid) for pid in pids), "the step and its child died with the worker")
    let_go(lab)
    lab.worker()
    run = lab.wait(run_id)
    assert run.state == "succeeded"
    assert story(run) == [
        ("extract", 1, "succeeded"),
        ("train", 1, "interrupted"),
        ("train", 2, "succeeded"),
        ("register", 1, "succeeded"),
    ]
    assert sorted(path.name for path in (lab.project.work / run_id).iterdir()) == ["extract", "register", "train"]


def test_a_living_worker_takes_over_the_run_of_a_dead_one(lab: Lab) -> None:
    first = lab.worker()
    run_id, following = lab.submit(register="hang"), lab.submit()
    lab.hanging(run_id)
    lab.worker()
    let_go(lab)
    kill(first)
    assert story(lab.wait(run_id))[2:] == [("register", 1, "interrupted"), ("register", 2, "succeeded")]
    assert lab.wait(following).state == "succeeded"


def test_sigterm_kills_the_step_and_leaves_the_run_to_the_next_worker(lab: Lab) -> None:
    worker = lab.worker()
    run_id = lab.submit(train="hang")
    pids = lab.hanging(run_id)
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(30.0) == 0
    assert all(gone(pid) for pid in pids)
    assert lab.jobs.show(run_id).state == "running"
    assert story(lab.jobs.show(run_id))[-1] == ("train", 1, "interrupted")
    let_go(lab)
    lab.worker("--until-idle")
    assert story(lab.wait(run_id))[2:] == [("train", 2, "succeeded"), ("register", 1, "succeeded")]


def test_a_worker_never_outlives_its_parent(lab: Lab) -> None:
    parent = f"""
import os, sys, threading
from interlock.core.lifeline import Child
command = [sys.executable, {str(SCRIPT)!r}, "--project", {str(lab.project.root)!r}]
print(Child(command, environment=os.environ, output=sys.stderr.fileno()).pid, flush=True)
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        pids = lab.hanging(lab.submit(extract="hang"))
        process.kill()
    eventually(lambda: all(gone(pid) for pid in (worker, *pids)), "worker, step and its child are dead")


def test_a_run_that_was_cancelled_without_a_worker_stays_cancelled(lab: Lab) -> None:
    worker = lab.worker()
    run_id = lab.submit(train="hang")
    lab.hanging(run_id)
    kill(worker)
    lab.jobs.cancel(run_id)
    lab.worker()
    assert lab.wait(lab.submit()).state == "succeeded"
    run = lab.jobs.show(run_id)
    assert run.state == "cancelled"
    assert story(run) == [("extract", 1, "succeeded"), ("train", 1, "interrupted")]


def test_kills_at_any_moment_run_no_finished_step_again(lab: Lab) -> None:
    submitted = [lab.submit() for _ in range(2)]
    begun = 0
    for _ in range(3):
        worker = lab.worker()
        so_far = begun

        def one_more(so_far: int = so_far) -> bool:
            return sum(len(lab.jobs.show(run_id).attempts) for run_id in submitted) > so_far

        eventually(one_more, "another attempt has begun")
        kill(worker)
        begun = sum(len(lab.jobs.show(run_id).attempts) for run_id in submitted)
    lab.worker()
    for run in [lab.wait(run_id) for run_id in submitted]:
        assert run.state == "succeeded"
        assert [step for step, _, state in story(run) if state == "succeeded"] == ["extract", "train", "register"]
        assert {state for _, _, state in story(run)} <= {"succeeded", "interrupted"}


def test_a_lost_engine_database_loses_no_run(lab: Lab) -> None:
    worker = lab.worker()
    running, queued = lab.submit(train="hang"), lab.submit()
    lab.hanging(running)
    kill(worker)
    for file in lab.project.state.glob("jobs.db*"):
        file.unlink()
    let_go(lab)
    lab.worker()
    assert story(lab.wait(running))[1:3] == [("train", 1, "interrupted"), ("train", 2, "succeeded")]
    assert lab.wait(queued).state == "succeeded"
