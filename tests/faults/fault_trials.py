"""Commands that are killed and called again: where a kill falls, how much is done twice, and what is compared afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


RUNNER = Path(__file__).with_name("fault_runner.py")
# Seconds; longer than any of these commands takes on a machine that does much else.
PATIENCE = 600


class Runner:
    """The process that forks; see there.

    Args:
        environment: of the commands.
    """

    def __init__(self, environment: dict[str, str]):
        # One thread, that of Python: a fork has no other.
        single = {
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
            "MKL_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(RUNNER)],
            env={**environment, **single, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.threads = self._answer()["threads"]

    def start(self, **what) -> int:
        """Start a command; see `fault_runner._run`."""
        return self._ask(start=what)["pid"]

    def wait(self, pid: int) -> dict:
        """{"ended": exit code, negative for a signal} or {"stopped": signal}."""
        return self._ask(wait=pid)

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, **request) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        assert line, "The process that forks has ended."
        return json.loads(line)


def read_trace(path: Path) -> list[dict]:
    """The events of a trace; a last line that was cut off is no event."""
    lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def units(events: list[dict], unit: str) -> int:
    """How many units of work, such as "steps", are in a trace."""
    return sum(event["count"] for event in events if event.get("unit") == unit)


def phase_of(events: list[dict]) -> str | None:
    """The innermost phase that was entered and not left."""
    entered = []
    for event in events:
        if "enter" in event:
            entered.append(event["enter"])
        elif "leave" in event:
            entered.remove(event["leave"])
    return entered[-1] if entered else None


def unfinished_write(events: list[dict]) -> str | None:
    """The file that was being written, if one was."""
    begun = {event["begin"]: event["path"] for event in events if "begin" in event}
    for event in events:
        if "end" in event:
            begun.pop(event["end"], None)
    return next(reversed(begun.values()), None)


@dataclass
class Job:
    """A command, and how its results are compared.

    Attributes:
        name: of the work that is tried.
        phases: those of a trace that belong to it.
        arguments: `arguments(folder)` are those of `tall`; everything it writes lies in `folder`.
        results: `results(folder)` is a JSON value or anything else that is equal where results are.
        unit: of the work that is counted.
        interval: units that an interruption may cost, in all.
        check: `check(folder, writing)` raises where something half-written would be loaded, after a kill; `writing` is the
            file that was being written, if one was.
        before: `before(folder)` is called before a trial.
        without: modules that are not there.
    """

    name: str
    phases: tuple[str, ...]
    arguments: Callable
    results: Callable
    unit: str
    interval: int
    check: Callable = lambda folder, writing: None
    before: Callable = lambda folder: None
    without: tuple[str, ...] = ()


@dataclass
class Undisturbed:
    """What a command did and made that nothing happened to."""

    folder: Path
    events: list[dict]
    results: object

    def writes(self, job: Job) -> dict[int, int]:
        """The files that were begun in a job's phases, by number, with how many buffers were written to each."""
        buffers = {event["end"]: event["buffers"] for event in self.events if event.get("buffers")}
        return {
            event["begin"]: buffers[event["begin"]]
            for place, event in enumerate(self.events)
            if event.get("begin") in buffers and phase_of(self.events[:place]) in job.phases
        }


@dataclass
class Trials:
    """Runs commands, kills them, and keeps what came out.

    Attributes:
        runner: that starts them.
        root: folder for all.
        report: file of JSON lines, one a trial; None for none.
    """

    runner: Runner
    root: Path
    report: str | None = None
    _undisturbed: dict[Callable, Undisturbed] = field(default_factory=dict)

    def run(self, job: Job, folder: Path, name: str, **options) -> tuple[dict, list[dict], str]:
        """Run a command to its end: how it ended, its trace, its output."""
        pid = self.start(job, folder, name, **options)
        ended = self.runner.wait(pid)
        return ended, self.events(folder, name), self.output(folder, name)

    def start(self, job: Job, folder: Path, name: str, **options) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        return self.runner.start(
            arguments=[str(one) for one in job.arguments(folder)],
            trace=str(self._aside(folder, name, "trace")),
            log=str(self._aside(folder, name, "log")),
            folder=str(folder),
            without=list(job.without),
            **options,
        )

    def events(self, folder: Path, name: str) -> list[dict]:
        return read_trace(self._aside(folder, name, "trace"))

    def output(self, folder: Path, name: str) -> str:
        return self._aside(folder, name, "log").read_text("utf-8", errors="replace")

    def _aside(self, folder: Path, name: str, suffix: str) -> Path:
        return self.root / f"{'-'.join(folder.parts[-3:])}.{name}.{suffix}"

    def undisturbed(self, job: Job) -> Undisturbed:
        """What the command does and makes that nothing happens to; run once."""
        if job.arguments not in self._undisturbed:
            folder = self.root / f"{job.name}-undisturbed"
            job.before(folder)
            ended, events, output = self.run(job, folder, "undisturbed")
            assert ended == {"ended": 0}, output[-4000:]
            self._undisturbed[job.arguments] = Undisturbed(folder, events, job.results(folder))
        return self._undisturbed[job.arguments]

    def killed(self, job: Job, seed: int, in_write: bool) -> dict:
        """Kill the command at a point that a seed draws, call it again, and compare; returns the line of the report."""
        expected = self.undisturbed(job)
        draw = random.Random(f"{job.name} {seed}")
        folder = self.root / f"{job.name}-{seed}-{'write' if in_write else 'moment'}"
        job.before(folder)
        kill = self._kill_in_write if in_write else self._kill_at
        pid, aimed = kill(job, expected, draw, folder)
        ended = self.runner.wait(pid)
        events = self.events(folder, "killed")
        line = {
            "job": job.name,
            "seed": seed,
            "aimed": aimed,
            "killed": ended == {"ended": -signal.SIGKILL},
            "phase": phase_of(events),
            "writing": unfinished_write(events),
            "unit": job.unit,
            "done": units(events, job.unit),
            "of": units(expected.events, job.unit),
        }
        line["inside"] = line["killed"] and line["phase"] in job.phases
        job.check(folder, line["writing"])
        ended, again, output = self.run(job, folder, "again")
        assert ended == {"ended": 0}, f"{line}\n{output[-4000:]}"
        # Fewer than none where the answer to what was done did not come back any more.
        line["redone"] = max(0, line["done"] + units(again, job.unit) - line["of"])
        line["interval"] = job.interval
        line["equal"] = job.results(folder) == expected.results
        if self.report is not None:
            with open(self.report, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        return line

    def _kill_in_write(self, job, expected, draw, folder):
        """Let it stop itself in the middle of a file, and kill it there."""
        begun = {event["begin"]: event["path"] for event in expected.events if "begin" in event}
        whole = expected.writes(job)
        number = draw.choice(sorted(whole))
        fault = {"write": number, "buffer": draw.randrange(whole[number]), "do": "stop"}
        pid = self.start(job, folder, "killed", fault=fault)
        stopped = self.runner.wait(pid)
        assert stopped == {"stopped": signal.SIGSTOP}, (fault, begun[number], self.output(folder, "killed")[-4000:])
        os.killpg(pid, signal.SIGKILL)
        return pid, {"file": begun[number], **fault}

    def _kill_at(self, job, expected, draw, folder):
        """Kill it some milliseconds after one of the events of its work, whatever it does then."""
        phases = [phase_of(expected.events[: place + 1]) for place in range(len(expected.events))]
        phase = draw.choice([phase for phase in job.phases if phase in phases])
        event = draw.choice([place for place, one in enumerate(phases, start=1) if one == phase])
        wait = draw.random() * 0.02
        pid = self.start(job, folder, "killed", late=0.02)
        stop = time.monotonic() + PATIENCE
        trace = self._aside(folder, "killed", "trace")
        while True:
            seen = trace.read_bytes() if trace.exists() else b""
            if seen.count(b"\n") >= event or b'"ended"' in seen or time.monotonic() > stop:
                break
            time.sleep(0.002)
        time.sleep(wait)
        os.killpg(pid, signal.SIGKILL)
        return pid, {"event": event, "seconds_later": round(wait, 4)}
