"""A process that starts `tall` commands as forks of itself, each in a process group of its own, and notes what they do.

To import torch takes longer than any of the commands tried here, so it is imported once, and nothing else is done before
the forks: this process stays single-threaded and runs no work. It reads JSON lines, such as {"start": {...}} and {"wait": PID},
and answers each by one.

What a command does it notes in a trace, a file that outlives it: which phase of its work begins and ends, each batch, step and
answer, and each file that is written. Told to, it stops itself in the middle of writing one of them, when half of a buffer is
in the file, to be killed there.
"""

import builtins
import contextlib
import errno
import functools
import gc
import importlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from huggingface_hub.errors import HTTPError


# The HTTP library of huggingface_hub, which depends on its version.
_http = importlib.import_module(HTTPError.__module__.partition(".")[0])
# Imported here where they are installed, or each fork would do it anew.
_USED = (
    "datasets.arrow_writer",
    "evaluate",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pydantic",
    "sacrebleu",
    "sacremoses",
    "safetensors.torch",
    "sentencepiece",
    "tall_hf.cli",
    "transformers.models.auto.modeling_auto",
    "transformers.models.marian.modeling_marian",
    "transformers.models.marian.tokenization_marian",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.trainer",
)
# What is called what in a trace: function, phase.
_PHASES = (
    ("tall_hf.data.prepare", "build_corpus", "cleaning"),
    ("tall_hf.data.prepare", "translate_corpus", "translation"),
    ("tall_hf.evaluation.benchmark", "translate_corpus", "translation"),
    ("tall_hf.data.prepare", "_save", "tokenising"),
    ("tall_hf.data.prepare", "_put_in_place", "putting in place"),
    ("tall_hf.training.adapter_trainer", "AdapterTrainer.train", "training"),
    ("tall_hf.training.adapter_trainer", "AdapterTrainer._save_checkpoint", "checkpointing"),
    ("tall_hf.training.adapter_run", "save", "saving"),
    ("tall_hf.saving", "save", "saving"),
    ("tall_hf.components", "compose", "composing"),
    ("tall_hf.evaluation.benchmark", "ask_approaches", "evaluation"),
    ("tall_hf.evaluation.benchmark", "write_report", "report"),
    ("tall_hf.publishing", "publish", "publishing"),
)
# Units of work, with how many there are in a call: function, name, count of its arguments.
_UNITS = (
    ("tall_hf", "TALLForCausalLM.translate", "sentences", lambda model, texts, *_, **__: len(texts)),
    ("tall_hf.training.adapter_trainer", "AdapterTrainer.training_step", "steps", lambda *_, **__: 1),
    ("tall_hf.evaluation.run", "_checked", "answers", lambda answers, batch: len(batch)),
)


class Trace:
    """Lines of JSON, each in the file when `note` returns."""

    def __init__(self, path: str):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, **event):
        os.write(self._file, (json.dumps(event) + "\n").encode())


class Writes:
    """The files that are written below a folder, counted; in one of them a fault happens.

    Args:
        trace: where they are noted, when they begin and when they end, with how many buffers were written.
        folder: only files in it count.
        fault: None, or {"write": which of them, "buffer": which of its buffers, "do": "stop", or an errno's name}.
    """

    def __init__(self, trace: Trace, folder: str, fault: dict | None):
        self.trace, self.folder, self.fault, self.count = trace, folder, fault, 0
        self.sent_before = set()

    def begin(self, path) -> int | None:
        """The number of a file that is going to be written, None if it does not count."""
        try:
            name = os.path.abspath(os.fsdecode(os.fspath(path)))
        except TypeError:
            return None  # a descriptor or a buffer
        # What work costs is written by a thread every few seconds, in no fixed order with the rest.
        if not name.startswith(f"{self.folder}/") or "cost" in os.path.relpath(name, self.folder):
            return None
        number, self.count = self.count, self.count + 1
        self.trace.note(begin=number, path=os.path.relpath(name, self.folder))
        return number

    def end(self, number: int, buffers: int):
        self.trace.note(end=number, buffers=buffers)

    def is_struck(self, number: int, buffer: int) -> bool:
        return self.fault is not None and (number, buffer) == (self.fault["write"], self.fault["buffer"])

    def strike(self, number: int):
        """Half of the buffer is in the file."""
        if self.fault["do"] == "stop":
            self.trace.note(struck=number)
            os.kill(os.getpid(), signal.SIGSTOP)
            return  # somebody lets it go on
        code = getattr(errno, self.fault["do"])
        raise OSError(code, os.strerror(code))

    def opened(self, open_, file, mode="r", *args, **kwargs):
        """`open`."""
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        number = self.begin(file) if writes and not isinstance(file, int) else None
        made = open_(file, mode, *args, **kwargs)
        return made if number is None else _Written(made, self, number)

    def saved(self, save, what, path, *args, **kwargs):
        """A function of a library's own that writes a whole file, which is one buffer."""
        number = self.begin(path)
        if number is not None and self.is_struck(number, 0):
            with tempfile.TemporaryDirectory() as aside:
                whole = Path(aside, os.path.basename(path))
                save(what, whole, *args, **kwargs)
                content = whole.read_bytes()
            with io.FileIO(path, "w") as file:
                file.write(content[: len(content) // 2])
            self.strike(number)
        result = save(what, path, *args, **kwargs)
        if number is not None:
            self.end(number, 1)
        return result

    def sent(self, send, transport, request, *args, **kwargs):
        """A request to the Hub, whose body goes into a file there."""
        number = None
        if request.method == "PUT" or "/commit/" in request.url.path:
            number, self.count = self.count, self.count + 1
            self.trace.note(begin=number, path=f"{request.method} {request.url.path}")
            if self.is_struck(number, 0):
                request.stream = _Half(b"".join(request.stream), lambda: self.strike(number))
        response = send(transport, request, *args, **kwargs)
        if number is not None:
            self.end(number, 1)
            # Two files of one content are two requests at once, of which the Hub keeps one.
            if request.url.path not in self.sent_before:
                self.sent_before.add(request.url.path)
                self.trace.note(unit="uploads", count=1)
        return response


class _Written:
    """A file that counts the buffers written to it."""

    def __init__(self, file, writes: Writes, number: int):
        self._file, self._writes, self._number, self._buffers = file, writes, number, 0

    def write(self, data):
        if self._writes.is_struck(self._number, self._buffers):
            half = data if isinstance(data, str) else bytes(data)
            self._file.write(half[: len(half) // 2])
            self._file.flush()
            self._writes.strike(self._number)
            data = half[len(half) // 2 :]
        self._buffers += 1
        return self._file.write(data)

    def close(self):
        if not self._file.closed:
            self._file.close()
            self._writes.end(self._number, self._buffers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)


class _Half(_http.SyncByteStream):
    """The body of a request, with a fault in its middle."""

    def __init__(self, body: bytes, strike):
        self._body, self._strike = body, strike

    def __iter__(self):
        yield self._body[: len(self._body) // 2]
        time.sleep(0.05)  # for the Hub to have it
        self._strike()
        yield self._body[len(self._body) // 2 :]


def _wrap(module: str, name: str, around) -> None:
    """Put `around(function, *args, **kwargs)` in a function's place; `name` may be a method's."""
    holder = importlib.import_module(module)
    *classes, name = name.split(".")
    for one in classes:
        holder = getattr(holder, one)
    function = getattr(holder, name)
    setattr(holder, name, functools.wraps(function)(lambda *args, **kwargs: around(function, *args, **kwargs)))


def observe(trace: Trace, writes: Writes, late: float) -> None:
    """Let everything that follows in this process be noted."""

    def phase_of(phase):
        def around(function, *args, **kwargs):
            trace.note(enter=phase)
            result = function(*args, **kwargs)
            trace.note(leave=phase)
            return result

        return around

    def unit_of(unit, count):
        def around(function, *args, **kwargs):
            result = function(*args, **kwargs)
            trace.note(unit=unit, count=count(*args, **kwargs))
            time.sleep(late)
            return result

        return around

    for module, name, phase in _PHASES:
        _wrap(module, name, phase_of(phase))
    for module, name, unit, count in _UNITS:
        _wrap(module, name, unit_of(unit, count))
    for module in (builtins, io):
        _wrap(module.__name__, "open", writes.opened)
    _wrap("safetensors.torch", "serialize_file", writes.saved)
    _wrap("torch", "save", writes.saved)
    _wrap(_http.__name__, "HTTPTransport.handle_request", writes.sent)


class JumpingClock:
    """`time.time` that goes an hour back at every third look, and four hours ahead at every tenth."""

    def __init__(self):
        self._time, self._looks = time.time, 0

    def __call__(self) -> float:
        self._looks += 1
        return self._time() + 3600 * (4 * (self._looks // 10) - self._looks // 3)


def jump():
    """Let the clock jump in this process, and checkpoints be dated by it."""
    clock = time.time = JumpingClock()

    def dated(save, state, path):
        save(state, path)
        folder = os.path.dirname(path)
        os.utime(folder, (clock(), clock()))

    # The last file of a checkpoint; behind it others are deleted.
    _wrap("transformers", "TrainerState.save_to_json", dated)


def _run(arguments, trace, folder, log, fault=None, clock=False, late=0.0, without=()):
    """What the fork does.

    Args:
        arguments: of `tall`.
        trace, log: files.
        folder: only writes below it are counted.
        fault: as for `Writes`.
        clock: whether it jumps.
        late: seconds that each unit of work takes longer, for there to be time to kill it.
        without: modules that cannot be imported, as if they were not installed.
    """
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.modules.update(dict.fromkeys(without))
    random.seed()  # a process of its own would not share its state with others
    trace = Trace(trace)
    observe(trace, Writes(trace, os.path.abspath(folder), fault), late)
    if clock:
        jump()
    from tall_hf.cli import app

    trace.note(started=time.monotonic())
    try:
        app(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 98
    trace.note(ended=code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):
            stream.flush()
    return code


def main():
    for module in _USED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # or a fork would copy what its first collection touches
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**what):
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    answer(threads=len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            child = os.fork()
            if child == 0:
                code = 97
                try:
                    code = _run(**request["start"])
                finally:
                    os._exit(code)
            answer(pid=child)
        else:
            _, status = os.waitpid(request["wait"], os.WUNTRACED)
            if os.WIFSTOPPED(status):
                answer(stopped=os.WSTOPSIG(status))
            else:
                answer(ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
