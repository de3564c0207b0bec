"""The law of the jobs room, on every engine, with real workers and real children."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs_lab import Lab, eventually, gone, story
from tests.receivers import mail_server, webhook

from interlock.core.clock import parse_time
from interlock.core.errors import Conflict, NotFound, NotRunning
from interlock.jobs.port import RunSpec, StepError
from interlock.jobs.records import Run
from interlock.jobs.worker import worker_lives
from interlock.store import tables


def published(lab: Lab, run: Run) -> list[str]:
    """What is left of a run's steps."""
    return sorted(path.name for path in (lab.project.work / run.id).iterdir())


WELL = [("extract", 1, "succeeded"), ("train", 1, "succeeded"), ("register", 1, "succeeded")]


@pytest.fixture(scope="module", params=["dbos"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A project with one worker, on each engine there is."""
    with contextlib.closing(Lab(tmp_path_factory.mktemp(request.param), TINY_TIMEOUT="2")) as made:
        made.worker()
        yield made


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Lab]:
    """A project without a worker."""
    with contextlib.closing(Lab(tmp_path)) as made:
        yield made


def test_runs_are_carried_in_the_order_of_submission_one_at_a_time(lab: Lab) -> None:
    submitted = [lab.submit() for _ in range(3)]
    runs = [lab.wait(run_id) for run_id in submitted]
    assert [story(run) for run in runs] == [WELL] * 3
    for earlier, later in itertools.pairwise(runs):
        assert (earlier.ended_at or "") <= later.attempts[0].started_at


def test_a_run_leaves_its_logs_and_no_scratch(lab: Lab) -> None:
    run = lab.wait(lab.submit())
    assert run.state == "succeeded"
    assert run.error is None
    assert (lab.project.logs / "runs" / run.id / "train-1.log").read_text() == "train is here\n"
    assert [line for line in lab.log(run.id).splitlines() if "==" not in line] == [
        "extract is here",
        "train is here",
        "register is here",
    ]
    assert published(lab, run) == ["extract", "register", "train"]


def test_a_refused_step_fails_the_run_at_once_and_a_retry_goes_on_there(lab: Lab) -> None:
    run = lab.wait(lab.submit(train="refuse"))
    assert story(run) == [("extract", 1, "succeeded"), ("train", 1, "failed")]
    assert run.state == "failed"
    assert run.error == StepError("recipe_failed", "your recipe raised ValueError", "mend recipe.py")
    assert run.attempts[-1].error == run.error
    assert "your recipe raised ValueError" in lab.log(run.id, "train")
    assert (lab.project.work / run.id / "train-1" / "scratch").exists()
    (lab.project.root / "mended").touch()
    lab.jobs.retry(run.id, "ann")
    run = lab.wait(run.id)
    assert story(run)[2:] == [("train", 2, "succeeded"), ("register", 1, "succeeded")]
    assert (run.state, run.error) == ("succeeded", None)


def test_a_failure_that_may_pass_is_retried_after_growing_pauses(lab: Lab) -> None:
    run = lab.wait(lab.submit(train="flaky 2"))
    assert run.state == "succeeded"
    tries = [attempt for attempt in run.attempts if attempt.name == "train"]
    assert [attempt.state for attempt in tries] == ["failed", "failed", "succeeded"]
    ended = [parse_time(attempt.ended_at or "") for attempt in tries]
    pauses = [(parse_time(tries[i + 1].started_at) - ended[i]).total_seconds() for i in (0, 1)]
    assert pauses[0] >= 0.2
    assert pauses[1] >= 0.6


def test_a_step_that_keeps_failing_uses_up_its_attempts(lab: Lab) -> None:
    run = lab.wait(lab.submit(extract="die"))
    assert story(run) == [("extract", n, "failed") for n in (1, 2, 3)]
    assert run.state == "failed"
    assert run.error is not None
    assert "killed by signal 9" in run.error.message
    assert run.error.next.endswith(run.id)


def test_a_time_out_kills_the_step_and_all_that_it_started(lab: Lab) -> None:
    run_id = lab.submit(train="hang")
    pids = lab.hanging(run_id)
    run = lab.wait(run_id)
    assert all(gone(pid) for pid in pids)
    assert [state for name, _, state in story(run) if name == "train"] == ["failed"] * 3
    assert run.error is not None
    assert run.error.code == "deadline_exceeded"
    assert "2 s" in lab.log(run_id, "train")


def test_a_cancel_kills_the_step_and_the_next_run_goes_on(lab: Lab) -> None:
    run_id, following = lab.submit(extract="hang"), lab.submit()
    pids = lab.hanging(run_id)
    lab.jobs.cancel(run_id)
    assert lab.wait(run_id).state == "cancelled"
    eventually(lambda: all(gone(pid) for pid in pids), "the step and its child are dead")
    assert lab.wait(following).state == "succeeded"
    assert story(lab.jobs.show(run_id)) == [("extract", 1, "cancelled")]


def test_a_cancel_ends_the_pause_before_a_retry(lab: Lab) -> None:
    run_id, following = lab.submit(register="flaky 1"), lab.submit()  # a pause of a minute
    eventually(lambda: ("register", 1, "failed") in story(lab.jobs.show(run_id)), "the last step has failed once")
    lab.jobs.cancel(run_id)
    assert lab.wait(following).state == "succeeded"
    lab.jobs.retry(run_id, "ann")
    assert story(lab.wait(run_id))[2:] == [("register", 1, "failed"), ("register", 2, "succeeded")]


def test_a_run_that_is_cancelled_and_retried_at_once_is_never_carried_twice(lab: Lab) -> None:
    run_id = lab.submit(train="hang")
    pids = lab.hanging(run_id)
    lab.jobs.cancel(run_id)
    lab.jobs.retry(run_id, "ann")
    lab.hanging(run_id, attempt=2)
    assert all(gone(pid) for pid in pids)
    lab.jobs.cancel(run_id)
    assert story(lab.wait(run_id))[:2] == [("extract", 1, "succeeded"), ("train", 1, "cancelled")]


def test_a_queued_run_that_is_cancelled_never_begins(lab: Lab) -> None:
    blocking, called_off = lab.submit(extract="hang"), lab.submit()
    lab.hanging(blocking)
    lab.jobs.cancel(called_off)
    lab.jobs.cancel(blocking)
    assert lab.wait(lab.submit()).state == "succeeded"
    assert lab.jobs.show(called_off).attempts == ()


def test_two_workers_carry_every_run_once(lab: Lab) -> None:
    second = lab.worker()
    runs = [lab.wait(run_id) for run_id in [lab.submit() for _ in range(4)]]
    assert [story(run) for run in runs] == [WELL] * 4
    for earlier, later in itertools.pairwise(runs):
        assert (earlier.ended_at or "") <= later.attempts[0].started_at
    assert second.stop(30.0) == 0


def test_two_workers_fire_a_tick_once(lab: Lab) -> None:
    second = lab.worker()
    lab.schedules.add("often", "* * * * * *", "UTC", RunSpec(model="tiny", parameters={"register": "ok"}), "ann")
    eventually(lambda: sum(run.schedule == "often" for run in lab.jobs.list()) >= 2, "two ticks")
    lab.schedules.pause("often")
    fired = [lab.wait(run.id) for run in lab.jobs.list() if run.schedule == "often"]
    assert all(run.state == "succeeded" for run in fired)
    ticks = lab.schedules.history("often", 1000)
    lab.schedules.remove("often")
    assert sorted(one.run_id or "" for one in ticks if one.state == "made") == sorted(run.id for run in fired)
    for earlier, later in itertools.pairwise(sorted(fired, key=lambda run: run.created_at)):
        assert (earlier.ended_at or "") <= later.created_at, "no run of a schedule while an earlier one goes"
    assert {one.state for one in ticks} <= {"made", "skipped"}
    assert second.stop(30.0) == 0


def test_of_waiting_runs_the_one_with_the_highest_priority_is_next(lab: Lab) -> None:
    blocking = lab.submit(extract="hang")
    lab.hanging(blocking)
    spec = RunSpec(model="tiny")
    low, usual, high, also_high = (lab.jobs.submit(spec, "ann", priority) for priority in (-1, 0, 5, 5))
    lab.jobs.cancel(blocking)
    runs = [lab.wait(run_id) for run_id in (high, also_high, usual, low)]
    for earlier, later in itertools.pairwise(runs):
        assert (earlier.ended_at or "") <= later.attempts[0].started_at


def test_no_more_runs_wait_than_the_settings_allow(tmp_path: Path) -> None:
    with contextlib.closing(Lab(tmp_path, "[jobs]\nwaiting = 2\n")) as full:
        first, _ = full.submit(), full.submit()
        with pytest.raises(Conflict, match="2 runs are open already") as caught:
            full.submit()
        assert "jobs cancel" in caught.value.next
        full.jobs.cancel(first)
        assert full.submit()


def test_a_failed_run_is_done_again_from_any_step_that_it_has_begun(lab: Lab) -> None:
    (lab.project.root / "mended").unlink(missing_ok=True)
    run = lab.wait(lab.submit(train="read extract", register="refuse"))
    assert run.state == "failed"
    with pytest.raises(NotFound, match=r"begun no step evaluate \(begun: extract, train, register\)"):
        lab.jobs.retry(run.id, "ann", "evaluate")
    (lab.project.root / "mended").touch()
    assert lab.jobs.retry(run.id, "ann", "train") == run.id
    assert story(lab.wait(run.id)) == [
        ("extract", 1, "succeeded"),
        ("train", 1, "superseded"),
        ("register", 1, "failed"),
        ("train", 2, "succeeded"),
        ("register", 2, "succeeded"),
    ]


def test_a_run_that_succeeded_is_done_again_from_any_step_as_a_new_run(lab: Lab) -> None:
    run = lab.wait(lab.submit(train="read extract"))
    with lab.database.write() as connection:
        connection.execute(tables.runs.update().where(tables.runs.c.id == run.id).values(validation='{"rows": 3}'))
    run = lab.jobs.show(run.id)
    with pytest.raises(Conflict, match="is succeeded") as caught:
        lab.jobs.retry(run.id, "ann")
    assert "--from STEP" in caught.value.next
    new = lab.wait(lab.jobs.retry(run.id, "bob", "train"))
    assert (new.id != run.id, new.origin, new.author, new.spec) == (True, run.id, "bob", run.spec)
    assert story(new) == WELL
    assert new.validation == {"rows": 3}, "of the data, which are the same"
    assert new.attempts[0].started_at == run.attempts[0].started_at, "taken over, not done again"
    assert lab.log(new.id, "train").endswith(f"extract of {run.id}\n")
    assert lab.jobs.show(run.id) == run, "what has been stays as it was"


def test_somebody_elses_failed_run_goes_on_as_a_run_of_who_asks(lab: Lab) -> None:
    (lab.project.root / "mended").unlink(missing_ok=True)
    run = lab.wait(lab.submit(train="read extract", register="refuse"))
    (lab.project.root / "mended").touch()
    new = lab.wait(lab.jobs.retry(run.id, "bob"))
    assert (new.state, new.author, new.origin) == ("succeeded", "bob", run.id)
    assert lab.jobs.show(run.id).state == "failed"


def test_a_log_is_followed_from_before_the_run_begins_to_its_end(lab: Lab) -> None:
    blocking = lab.submit(extract="hang")
    lab.hanging(blocking)
    run_id = lab.submit(train="flaky 1")
    texts = lab.jobs.log(run_id, follow=True)
    lab.jobs.cancel(blocking)
    followed = "".join(texts)
    assert lab.jobs.show(run_id).state == "succeeded"
    assert followed == lab.log(run_id)
    assert [line for line in followed.splitlines() if "==" not in line] == [
        "extract is here", "train is here", "interlock: the warehouse is locked", "train is here", "register is here",
    ]  # fmt: skip


def test_every_attempt_tells_its_peak_memory(lab: Lab) -> None:
    run, killed = lab.wait(lab.submit(train="eat 400")), lab.wait(lab.submit(extract="die"))
    peaks = {one.name: one.peak_mb or 0.0 for one in run.attempts}
    assert peaks["train"] > 400 > peaks["extract"] > 1
    assert all(400 > (one.peak_mb or 0.0) > 1 for one in killed.attempts)


def test_a_failed_run_is_told_by_webhook_and_mail_until_each_has_taken_it(tmp_path: Path) -> None:
    with webhook() as hook, mail_server() as mail:
        settings = f"""
[jobs]
webhook = "http://127.0.0.1:{hook.port}/runs"
mail = ["ops@my.org", "ann@my.org"]
[mail]
server = "127.0.0.1:{mail.port}"
security = "none"
sender = "interlock@my.org"
[endpoint]
owner = "flight operations"
"""
        hook.answer = 503
        with contextlib.closing(Lab(tmp_path, settings)) as lab:
            lab.worker()
            run = lab.wait(lab.submit(train="refuse"))
            eventually(lambda: bool(mail.heard), "the mail has come")
            (message,) = mail.heard
            assert (message["to"], message["from"]) == ("ops@my.org, ann@my.org", "interlock@my.org")
            assert f"run {run.id} of tiny failed: your recipe raised ValueError" in message.get_content()
            assert f"interlock jobs retry {run.id}" in message.get_content()
            hook.answer = 200
            eventually(lambda: bool(lab.runs.untold()), "the webhook's refusal is noted")
            lab.worker("--until-idle").process.wait(30.0)  # the next worker does not wait for the pause to end
            eventually(lambda: lab.runs.untold() == [], "both have taken it")
            assert len(mail.heard) == 1, "who has heard does not hear it twice"
            told = hook.heard[-1]
            assert (told["event"], told["id"], told["state"]) == ("run_failed", run.id, "failed")
            assert told["owner"] == "flight operations"
            assert lab.wait(lab.submit()).state == "succeeded"
            assert lab.runs.untold() == []


def test_files_of_runs_that_ended_long_ago_are_removed_and_records_stay(tmp_path: Path) -> None:
    with contextlib.closing(Lab(tmp_path)) as lab:
        worker = lab.worker()
        old, failed = lab.wait(lab.submit()), lab.wait(lab.submit(train="refuse"))
        assert worker.stop(30.0) == 0
        lab.worker("--until-idle").process.wait(30.0)
        assert "extract" in published(lab, failed), "what the retry of a recent run needs is kept"
        with lab.project.config.open("a") as config:
            config.write("[jobs]\nkeep_days = 1e-9\n")
        lab.worker()
        folders = [parent / run.id for parent in (lab.project.work, lab.project.logs / "runs") for run in (old, failed)]
        eventually(lambda: not any(folder.exists() for folder in folders), "logs and results are removed")
        assert lab.jobs.show(old.id) == old
        assert [line[:2] for line in lab.log(old.id).splitlines()] == ["=="] * 3, "only the headings"
        with pytest.raises(Conflict, match="is gone") as caught:
            lab.jobs.retry(failed.id, "ann")
        assert caught.value.next == f"begin anew: interlock jobs retry {failed.id} --from extract"
        (lab.project.root / "mended").touch()
        lab.jobs.retry(failed.id, "ann", "extract")
        assert lab.wait(failed.id).state == "succeeded"


def test_progress_is_shown_from_the_queue_to_the_end(lab: Lab) -> None:
    seen: list[str] = []
    run = lab.jobs.wait(lab.submit(), lambda run: seen.append(run.state))
    assert seen[-1] == run.state == "succeeded"
    assert set(seen) <= {"queued", "running", "succeeded"}


def test_a_worker_until_idle_carries_what_is_queued_and_leaves(still: Lab) -> None:
    submitted = [still.submit(), still.submit()]
    worker = still.worker("--until-idle")
    assert worker.process.wait(30.0) == 0
    assert [still.jobs.show(run_id).state for run_id in submitted] == ["succeeded", "succeeded"]


def test_without_a_worker_runs_wait_and_can_be_called_off(still: Lab) -> None:
    run_id = still.submit()
    assert not worker_lives(still.project)
    with pytest.raises(NotRunning) as caught:
        still.jobs.wait(run_id, patience=0.0)
    assert caught.value.next == "start one: interlock up"
    still.jobs.cancel(run_id)
    assert still.wait(run_id).state == "cancelled"


def test_what_cannot_be_done_says_why(lab: Lab) -> None:
    run = lab.wait(lab.submit())
    with pytest.raises(Conflict, match="is succeeded"):
        lab.jobs.cancel(run.id)
    with pytest.raises(Conflict, match="is succeeded"):
        lab.jobs.retry(run.id, "ann")
    with pytest.raises(NotFound, match="no step tarin"):
        lab.log(run.id, "tarin")
    with pytest.raises(NotFound, match="no run nonsense"):
        lab.jobs.show("nonsense")


def test_a_living_worker_is_seen(lab: Lab) -> None:
    assert worker_lives(lab.project)


CLOCK = """
import sys, time
from pathlib import Path
from interlock.jobs.dbos import DbosEngine
from sqlalchemy import create_engine, text

engine = DbosEngine(Path(sys.argv[1]), "worker-0")
engine.start(print)
with create_engine("sqlite://").connect() as connection:
    told = connection.scalar(text("select unixepoch('subsec')"))
assert told is not None and abs(told - time.time()) < 60, told
engine.stop()
"""


def test_the_clock_that_dbos_asks_of_sqlite_from_python_3_12_on_is_there(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CLOCK, str(tmp_path / "jobs.db")], check=True, timeout=60)
