"""A queue of commands that goes on where it was stopped: what is done stays done, what failed leaves the others."""

import contextlib
import datetime
import fnmatch
import json
import os
import platform
import queue as thread_queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tall_hf.files import write_json

from .launch import Launch


TALL = [sys.executable, "-m", "tall_hf.cli"]
# Seconds between two looks at what other processes have done.
_POLL = 2.0
# Of `ru_maxrss`, in bytes.
_MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
# Tells glibc to keep the memory of large tensors in place of giving it back, for the system to clear it, at every one of them.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11)}


@dataclass
class Stage:
    """A command of the queue.

    Attributes:
        name: such as "train:gated".
        command: what is run.
        needs: names of the stages that must be done before.
        links: symbolic links to make before, from -> to: what stages share.
        turn: stages of one turn are run by one process, where several were launched.
        about: what it is for, to be read beside its name.
    """

    name: str
    command: list[str]
    needs: list[str] = field(default_factory=list)
    links: dict[Path, Path] = field(default_factory=dict)
    turn: int = 0
    about: str = ""


def shown(command: Sequence[str], folder: Path | None = None) -> str:
    """A command as a user would type it, in `folder` if that is given."""
    if list(command[:3]) == TALL:
        command = ["tall", *command[3:]]
    elif command[0] == sys.executable:
        command = ["python", *command[1:]]
    return shlex.join(one if folder is None else one.removeprefix(f"{folder}/") for one in command)


def record_path(output: Path, stage: Stage) -> Path:
    """Where it is written how a stage ended."""
    return output / "stages" / f"{stage.name.replace(':', '.')}.json"


def log_path(output: Path, stage: Stage) -> Path:
    """Where the output of a stage's command goes."""
    return output / "logs" / f"{stage.name.replace(':', '.')}.log"


def lock_path(output: Path, stage: Stage) -> Path:
    """The file that a stage's command holds locked as long as it runs, with its process id inside."""
    return record_path(output, stage).with_suffix(".lock")


def left_running(output: Path, stage: Stage) -> str | None:
    """The process id of a stage's command that an earlier queue, killed, has left at work; None if there is none."""
    import fcntl  # here, for other commands import this module where there is none

    try:
        with open(lock_path(output, stage), encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except FileNotFoundError:
        pass
    return None


def read_record(output: Path, stage: Stage) -> dict[str, Any]:
    """How a stage ended the last time; empty where it never has.

    Raises:
        ValueError: the file is damaged.
    """
    path = record_path(output, stage)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it; the stage is then run again.") from error


def is_done(output: Path, stage: Stage) -> bool:
    """Whether this very command ended well; by another interpreter too, since a new environment does not undo it."""
    record = read_record(output, stage)
    arguments = slice(1 if stage.command[0] == sys.executable else 0, None)
    return bool(record) and record["command"][arguments] == stage.command[arguments] and record["exit_code"] == 0


class Running:
    """A stage whose command has been started, with its output in `logs/`.

    Args:
        output: folder of everything.
        stage: which.
        threads: of the processor, for the command.
        launch_id: of the launch.
        ended: is given this object when the command has ended.
    """

    def __init__(
        self,
        output: Path,
        stage: Stage,
        threads: int,
        launch_id: str | None,
        ended: "thread_queue.SimpleQueue[Running]",
    ):
        for link, target in stage.links.items():
            target.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.exists() and not link.is_symlink():
                raise FileExistsError(
                    f"{link} is to be a link to {target}, and is something else; move what is in it there, and delete it."
                )
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(target, link.parent))
        self.stage = stage
        self.log = log_path(output, stage)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.exit_code: int | None = None
        self._path = record_path(output, stage)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        previous = read_record(output, stage)
        # Attempts that failed or were stopped count, unless the command has changed since.
        self._before = previous if previous.get("command") == stage.command else {}
        self._threads, self._launch_id, self._ended = threads, launch_id, ended
        self._start = time.monotonic()
        import fcntl

        with open(self.log, "ab") as file, open(lock_path(output, stage), "w", encoding="ascii") as lock:
            # The command inherits it, and has it still when this process is killed.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Kept, for the next Popen would reap the child of one that nobody holds.
            self._process = subprocess.Popen(
                stage.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_KEEP_MEMORY | os.environ | {"OMP_NUM_THREADS": str(threads)},
                pass_fds=(lock.fileno(),),
            )
            lock.write(f"{self._process.pid}\n")
        # Only wait4 tells what a command has used, and a thread can wait for one of several.
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        _, status, self._usage = os.wait4(self._process.pid, 0)
        self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.put(self)

    def record(self, exit_code: int | None) -> float:
        """Write how it went, and return the seconds it took; `exit_code` is None where the command was stopped."""
        processor_seconds = self._usage.ru_utime + self._usage.ru_stime
        before = self._before.get("processor_seconds") if self._before else 0.0
        record = {
            "stage": self.stage.name,
            "command": self.stage.command,
            "exit_code": exit_code,
            "seconds": round(self._before.get("seconds", 0.0) + time.monotonic() - self._start, 1),
            # Far less than seconds by the clock these depend on what else the machine does.
            "processor_seconds": None if before is None else round(before + processor_seconds, 1),
            "peak_memory": max(self._before.get("peak_memory") or 0, self._usage.ru_maxrss * _MEMORY_UNIT),
            "date": str(datetime.date.today()),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            # None where one attempt had others than the next.
            "threads": self._threads if self._before.get("threads", self._threads) == self._threads else None,
            "launch": self._launch_id,
        }
        write_json(self._path, record)
        return record["seconds"]

    def stop(self) -> None:
        """End the command; what it has saved is where the next attempt goes on."""
        was_running = self.exit_code is None
        if was_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
        self._thread.join()
        self.record(None if was_running else self.exit_code)


def threads_of_each(count: int) -> int:
    """Threads for each of `count` commands at a time: an equal share of the cores, or a smaller OMP_NUM_THREADS of the user's."""
    share = max(1, (os.cpu_count() or 1) // count)
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(chosen)) if chosen.isdecimal() and int(chosen) else share


def run_queue(output: Path, queue: Sequence[Stage], jobs: int = 1, launch: Launch | None = None) -> list[str]:
    """Run what is not done, in order; what needs a stage that failed is left out.

    A command that an earlier queue has left at work, since it was killed with SIGKILL, is waited for; then the stage is run,
    which finds what that command has made.

    Args:
        output: folder of everything.
        queue: each stage after what it needs.
        jobs: how many stages at a time, each with its share of the processor's threads (`threads_of_each`). For models as
            small as those of two cores, two stages with a thread each are done sooner than one after the other with two.
        launch: where several processes run the queue together. Each runs the stages of its turns, waits for what these need
            of others, and in the end for everybody.

    Returns:
        The names of stages that are not done.
    """
    launch = launch or Launch()
    state = _QueueState(output, queue, launch)
    numbers = {stage.name: number for number, stage in enumerate(queue, start=1)}
    running: dict[str, Running] = {}
    ended: thread_queue.SimpleQueue[Running] = thread_queue.SimpleQueue()
    threads = threads_of_each(jobs * launch.local_world_size)
    at_work: dict[str, str] = {}
    try:
        while state.waiting or running:
            before, at_work = at_work, {}
            for stage in state.waiting:
                if pid := left_running(output, stage):
                    at_work[stage.name] = pid
                    if stage.name not in before:
                        print(
                            f"{stage.name} is still at work (pid {pid}), from an earlier call that was killed; waiting for it "
                            "to end",
                            flush=True,
                        )
            left_at_work = [stage for stage in state.waiting if stage.name in at_work]
            for stage in list(state.waiting):
                filling = [*left_at_work, *(one.stage for one in running.values())]
                position = f"[{numbers[stage.name]}/{len(queue)}] {stage.name}"
                if stage.about:
                    position += f" ({stage.about})"
                if lacking := [need for need in stage.needs if state.is_failed(need)]:
                    print(f"{position}: left out, {lacking[0]} is not done", flush=True)
                    state.leave_out(stage)
                    continue
                if stage.name in at_work or len(running) + len(at_work) >= jobs or _share(stage, filling):
                    continue
                if not all(state.is_done(need) for need in stage.needs):
                    continue
                print(f"{position}: {shown(stage.command)}", flush=True)
                running[stage.name] = Running(output, stage, threads, launch.id, ended)
                state.waiting.remove(stage)
            if not running and not state.waiting:
                break
            try:
                one = ended.get(timeout=None if launch.world_size == 1 and running and not at_work else _POLL)
            except thread_queue.Empty:
                continue
            del running[one.stage.name]
            seconds = one.record(one.exit_code)
            if one.exit_code:
                state.failed.add(one.stage.name)
                print(
                    f"{one.stage.name} failed with exit code {one.exit_code}; see {one.log}",
                    file=sys.stderr,
                    flush=True,
                )
            else:
                state.done.add(one.stage.name)
                print(f"{one.stage.name} is done, in {seconds:,.0f} seconds", flush=True)
    finally:
        for one in running.values():
            one.stop()
    # A launcher ends all its processes when one of them fails, so nobody leaves before the work is over.
    while not all(state.is_done(stage.name) or state.is_failed(stage.name) for stage in queue):
        time.sleep(_POLL)
    return [stage.name for stage in queue if not state.is_done(stage.name)]


class _QueueState:
    """How far the stages are in this launch: this process's own, and by their records those of others."""

    def __init__(self, output: Path, queue: Sequence[Stage], launch: Launch):
        self.output, self.launch = output, launch
        self.stages = {stage.name: stage for stage in queue}
        self.done = {stage.name for stage in queue if is_done(output, stage)}
        self.failed: set[str] = set()
        self.waiting = [stage for stage in queue if stage.name not in self.done and launch.runs(stage.turn)]

    def leave_out(self, stage: Stage):
        self.failed.add(stage.name)
        self.waiting.remove(stage)

    def is_done(self, name: str) -> bool:
        if name not in self.done and self._is_of_others(name) and is_done(self.output, self.stages[name]):
            self.done.add(name)
        return name in self.done

    def is_failed(self, name: str) -> bool:
        """Whether a stage has failed or was left out, and will not be done in this launch."""
        if name not in self.done | self.failed and self._is_of_others(name):
            record = read_record(self.output, self.stages[name])
            has_failed = record.get("launch") == self.launch.id and record["exit_code"] != 0
            if has_failed or any(self.is_failed(need) for need in self.stages[name].needs):
                self.failed.add(name)
        return name in self.failed

    def _is_of_others(self, name: str) -> bool:
        return not self.launch.runs(self.stages[name].turn)


def _share(stage: Stage, running: Iterable[Stage]) -> bool:
    """Whether a running stage fills the same linked folder: what one of them learns, the other finds there later."""
    return any(set(stage.links.values()) & set(other.links.values()) for other in running)


def with_needs(queue: Sequence[Stage], patterns: Sequence[str]) -> list[Stage]:
    """The stages that a pattern names, and all that they need.

    Raises:
        ValueError: there is no such stage.
    """
    wanted = [stage.name for stage in queue if any(fnmatch.fnmatch(stage.name, pattern) for pattern in patterns)]
    if not wanted:
        raise ValueError(f"No stage is called {' or '.join(patterns)}; --list shows all.")
    return needed_for(queue, wanted)


def needed_for(queue: Sequence[Stage], wanted: Iterable[str]) -> list[Stage]:
    """The stages of these names, and all that they need."""
    stages = {stage.name: stage for stage in queue}
    wanted, found = list(wanted), set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += stages[name].needs
    return [stage for stage in queue if stage.name in found]


def state_of(output: Path, stage: Stage) -> str:
    """How far a stage is: "done", "failed" or "missing"."""
    if is_done(output, stage):
        return "done"
    return "failed" if read_record(output, stage).get("exit_code") else "missing"
