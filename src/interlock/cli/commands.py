"""Every command: its name, where it is, one line of help and an example. Nothing here imports them; running one does.

A name of two words belongs to a family (`keys generate`). A target is `module:function` under `interlock.cli`; the
function gets `session` by keyword, returns a `Reply` (or None when it has printed as it went), and documents its
parameters under `Args:`. The example stands without the word `interlock`.
"""

from __future__ import annotations

from typing import NamedTuple

PROJECT = "Project"
TRAIN = "Data and training"
GATE = "The gate"
TRAFFIC = "Traffic"
INSIGHT = "Insight"
PROCESSES = "Processes"
GROUPS = (PROJECT, TRAIN, GATE, TRAFFIC, INSIGHT, PROCESSES)
"""In the order of `interlock --help`."""

FAMILIES = {
    "data": (TRAIN, "Tables in the warehouse that models learn from."),
    "jobs": (TRAIN, "Runs of training: queued, running, ended."),
    "schedules": (TRAIN, "Training on a clock."),
    "feedback": (TRAFFIC, "Labels and outcomes that became known."),
    "keys": (GATE, "Private keys of people."),
    "users": (GATE, "Who may do what: the signed trust root."),
    "versions": (GATE, "What was trained, what was said about it, where it serves."),
}
"""Commands that have subcommands: group and help."""


class Command(NamedTuple):
    """One line of the table."""

    name: str
    target: str
    group: str
    help: str
    example: str


# fmt: off
COMMANDS = (
    Command("init", "init:init", PROJECT,
            "Make a project: settings, recipe, keys, and your file in a warehouse.",
            "init my --from customers.csv --label churned --time signup"),
    Command("up", "processes:up", PROJECT,
            "Run everything this project needs, until Ctrl-C.",
            "up --detach"),
    Command("down", "processes:down", PROJECT,
            "Stop everything that `interlock up` started.",
            "down"),
    Command("status", "status:status", PROJECT,
            "Show what runs, and what each gateway serves.",
            "status"),
    Command("demo", "demo.story:demo", PROJECT,
            "Run the whole loop on the flights of 2013 and print what happened.",
            "demo --dir my-demo"),
    Command("doctor", "doctor:doctor", PROJECT,
            "Look for what is wrong here, and say what mends it.",
            "doctor"),
    Command("data add", "data:add", TRAIN,
            "Load a CSV, Parquet or JSON file into a table of the warehouse.",
            "data add flights.csv --as flights"),
    Command("data list", "data:list_tables", TRAIN,
            "List the tables of the warehouse.",
            "data list"),
    Command("data head", "data:head", TRAIN,
            "Show the first rows of a table.",
            "data head flights"),
    Command("train", "train:train", TRAIN,
            "Train a version: extract, split, train, evaluate, prove, package.",
            "train --param learning_rate=0.05 --wait"),
    Command("jobs list", "jobs:list_jobs", TRAIN,
            "List runs, the newest first.",
            "jobs list"),
    Command("jobs show", "jobs:show", TRAIN,
            "Show one run and every attempt of its steps.",
            "jobs show 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e"),
    Command("jobs logs", "jobs:logs", TRAIN,
            "Print what the steps of a run wrote.",
            "jobs logs 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e --follow"),
    Command("jobs cancel", "jobs:cancel", TRAIN,
            "Call a run off; its step is killed.",
            "jobs cancel 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e"),
    Command("jobs retry", "jobs:retry", TRAIN,
            "Queue a failed or cancelled run again, from the step where it ended.",
            "jobs retry 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e"),
    Command("schedules list", "schedules:list_schedules", TRAIN,
            "List schedules with their next tick.",
            "schedules list"),
    Command("schedules add", "schedules:add", TRAIN,
            "Train at every tick of a cron expression.",
            "schedules add weekly --cron '0 3 * * 1' --zone Europe/Berlin"),
    Command("schedules pause", "schedules:pause", TRAIN,
            "Make no more runs until `resume`.",
            "schedules pause weekly"),
    Command("schedules resume", "schedules:resume", TRAIN,
            "Make runs again, from the next tick on.",
            "schedules resume weekly"),
    Command("schedules remove", "schedules:remove", TRAIN,
            "Forget a schedule; its runs stay.",
            "schedules remove weekly"),
    Command("evaluate", "evaluate:evaluate", TRAIN,
            "Evaluate a version anew, alone or against another one on identical rows.",
            "evaluate flight-delay:2 --against flight-delay:1"),
    Command("keys generate", "keys:generate", GATE,
            "Make a private key for a person; the public one lies beside it.",
            "keys generate rita"),
    Command("keys list", "keys:list_keys", GATE,
            "List the keys on this machine.",
            "keys list"),
    Command("users add", "users:add", GATE,
            "Trust a person's key, or change what they may do; needs the root key.",
            "users add rita --role reviewer"),
    Command("users list", "users:list_users", GATE,
            "List who is trusted, with their roles.",
            "users list"),
    Command("versions list", "versions:list_versions", GATE,
            "List versions, the last decision about each, and the arms that serve it.",
            "versions list"),
    Command("versions show", "versions:show", GATE,
            "Show one version: its manifest and every decision about it.",
            "versions show flight-delay:1"),
    Command("versions diff", "versions:diff", GATE,
            "Show what differs between the manifests of two versions.",
            "versions diff flight-delay:1 flight-delay:2"),
    Command("review", "review:review", GATE,
            "Show all evidence about a version, and the lines that approve or reject it.",
            "review flight-delay:2"),
    Command("approve", "review:approve", GATE,
            "Sign that a version may be served.",
            "approve flight-delay:2 --as rita --reason 'better on every carrier'"),
    Command("reject", "review:reject", GATE,
            "Sign that a version may not be served; takes an approval back.",
            "reject flight-delay:2 --as rita --reason 'worse at EWR'"),
    Command("audit", "audit:audit", GATE,
            "Show the audit trail, or verify it.",
            "audit verify"),
    Command("deploy", "release:deploy", TRAFFIC,
            "Let an approved version serve as an arm of an endpoint, which is made when missing.",
            "deploy flight-delay:1 --to flight-delay --as champion --as olga"),
    Command("traffic", "release:traffic", TRAFFIC,
            "Share the units out among the arms; as few as possible change arms.",
            "traffic flight-delay champion=80 challenger=20 --as olga"),
    Command("promote", "release:promote", TRAFFIC,
            "Make a challenger the champion; the old champion stands by, warm.",
            "promote flight-delay --as olga"),
    Command("rollback", "release:rollback", TRAFFIC,
            "Go one step back: the champion before becomes champion again.",
            "rollback flight-delay --as olga --reason 'more timeouts'"),
    Command("retire", "release:retire", TRAFFIC,
            "Take a challenger out; its units go back to the champion.",
            "retire flight-delay challenger --as olga"),
    Command("params", "release:params", TRAFFIC,
            "Show the parameters of an endpoint, or change them live.",
            "params flight-delay THRESHOLD=0.4 --as olga"),
    Command("predict", "predict:predict", TRAFFIC,
            "Ask a running endpoint for one prediction.",
            "predict flight-delay --sample"),
    Command("feedback load", "predict:load", TRAFFIC,
            "Send labels and outcomes from a file to an endpoint.",
            "feedback load labels.csv --to flight-delay"),
    Command("experiment", "experiment:experiment", INSIGHT,
            "Compare a challenger with the champion on live traffic: start, show, decide.",
            "experiment flight-delay decide --ship --reason 'fewer false alarms' --as olga"),
    Command("monitors", "monitors:monitors", INSIGHT,
            "Show the last number of every monitor, or make a pass now.",
            "monitors flight-delay --run"),
    Command("alerts", "monitors:alerts", INSIGHT,
            "List open alerts; acknowledge, silence or resolve one.",
            "alerts silence 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e --hours 8"),
    Command("predictions", "log:predictions", INSIGHT,
            "Show rows of an endpoint's prediction log.",
            "predictions flight-delay --since 1h --where \"out_score > 0.9\""),
    Command("explain", "explain:explain", INSIGHT,
            "Tell everything about one prediction: input, arm, version, data, who approved it, its label.",
            "explain 019a7c1e-5b7a-7c3e-9f00-6a1e6a0c1d2e"),
    Command("reconcile", "log:reconcile", INSIGHT,
            "Prove that the prediction log is whole.",
            "reconcile flight-delay --ids answered.txt --wait 10"),
    Command("server", "processes:server", PROCESSES,
            "Run the control plane by itself.",
            "server"),
    Command("worker", "processes:worker", PROCESSES,
            "Run one worker: it carries runs and fires schedules.",
            "worker"),
    Command("gateway", "processes:gateway", PROCESSES,
            "Run one gateway worker.",
            "gateway --slot 1"),
    Command("recorder", "processes:recorder", PROCESSES,
            "Run the recorder, which moves the journals into the warehouse.",
            "recorder"),
    Command("model-server", "model_server:model_server", PROCESSES,
            "Serve one approved package by hand.",
            "model-server --package DIR --approval FILE --trust trust.json --root sha256:… --port 9000"),
)
# fmt: on
