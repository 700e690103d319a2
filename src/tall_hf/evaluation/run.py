"""Every approach asked every question: trained or loaded, batched, kept as it goes, and an error of one left to that one."""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tall_hf.files import LOCK_NAME, full_disk_named, is_plain_name, locked, read_json, remove_unfinished, write_json
from tall_hf.fingerprints import json_digest
from tall_hf.measuring.cost import Cost, CostMeter
from tall_hf.measuring.device import free_memory
from tall_hf.progress import progress_bars

from .approach import PROTOCOLS, Answer, Approach, Question, TrainingText
from .store import AnswerStore, KeptCost, read_answers


logger = logging.getLogger(__name__)

# Other code may answer in another way.
_VERSIONS = ("tall-hf", "transformers")
_ANSWERS = "answers"
_FITTED = "fitted"
# What a sum of probabilities may exceed 1 by.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Run:
    """One approach under one protocol.

    Attributes:
        approach, protocol: which.
        answers: one a question, in the order of the questions; None if it failed.
        error: why it failed, such as "ValueError: ..."; None if it did not.
        settings: the approach's.
        learned: what its `fit` said; empty if it learned nothing.
        fitting: cost of learning, of the call that finished it; None if nothing was learned.
        answering: cost of the answers, those of interrupted calls included.
    """

    approach: str
    protocol: str
    answers: list[Answer] | None = None
    error: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    fitting: Cost | None = None
    answering: Cost = Cost()


@dataclass(frozen=True)
class Results:
    """What `evaluate_approaches` found.

    Attributes:
        questions: of each protocol.
        runs: of each approach under each of its protocols, in the order of the approaches.
        seed, batch_size, top_k: as they were asked for.
    """

    questions: dict[str, list[Question]]
    runs: list[Run]
    seed: int
    batch_size: int
    top_k: int

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.error is not None]

    def of(self, protocol: str) -> list[Run]:
        return [run for run in self.runs if run.protocol == protocol]


def evaluate_approaches(
    approaches: Sequence[Approach],
    questions: dict[str, list[Question]],
    output: str | Path,
    training: TrainingText | None = None,
    *,
    batch_size: int = 32,
    top_k: int = 5,
    seed: int = 0,
    shard_batches: int = 8,
    console: Console | None = None,
) -> Results:
    """Ask approaches the missing words, one approach after another.

    Questions are sorted by length, the longest first, and asked in batches; torch is seeded before each batch from the seed,
    the approach, the protocol and the batch's number. Answers are kept in `output/answers`, what was learned in
    `output/fitted`, in folders named after all that decides them: the same call goes on where it was killed and ends with
    the answers of an undisturbed one, and other settings, questions or training text never meet them.

    An approach that raises is logged with its traceback and listed with its error; the others go on.

    Args:
        approaches: in the order of the table; each with a name of its own.
        questions: for each protocol its questions.
        output: folder for what is kept.
        training: what approaches that learn may learn from.
        batch_size: questions a batch.
        top_k: words an approach may propose for a question.
        seed: of what approaches draw.
        shard_batches: batches a file: what an interruption loses at most.
        console: where progress is shown; standard error when not given.

    Raises:
        ValueError: no approaches, no questions, unknown protocols, names that are not distinct or make no file name, or
            a question without a translation for an approach that reads it.
        BlockingIOError: another process evaluates into `output`.
        OSError: the disk is full; the answers before are kept.
    """
    options = {"batch_size": batch_size, "top_k": top_k, "seed": seed, "shard_batches": shard_batches}
    check_approaches(approaches, questions, batch_size=batch_size, top_k=top_k, shard_batches=shard_batches)
    with evaluating_into(output):
        return ask_approaches(approaches, questions, output, training, **options, console=console)


@contextlib.contextmanager
def evaluating_into(output: str | Path) -> Iterator[None]:
    """Within, an evaluation writes to `output`: nobody else does, and a full disk is named.

    Raises:
        FileExistsError: `output` holds something else than an evaluation.
        BlockingIOError: another process is evaluating into it.
        OSError: it cannot be written to, or its disk is full.
    """
    output = Path(output)
    if output.exists() and not (output / _ANSWERS).is_dir():
        # What was learned may be there before, as a link to a folder that several evaluations share.
        known = (LOCK_NAME, _FITTED)
        others = (
            sorted(path.name for path in output.iterdir() if path.name not in known) if output.is_dir() else ["it"]
        )
        if others:
            raise FileExistsError(
                f"{output} is no folder of an evaluation (there is {others[0]}); name a new or an empty folder."
            )
    (output / _ANSWERS).mkdir(parents=True, exist_ok=True)
    advice = "Free some space, then run the same command again: it goes on where it stopped."
    with locked(output), full_disk_named(output, advice):
        remove_unfinished(output)
        yield


def ask_approaches(
    approaches: Sequence[Approach],
    questions: dict[str, list[Question]],
    output: str | Path,
    training: TrainingText | None,
    *,
    batch_size: int,
    top_k: int,
    seed: int,
    shard_batches: int = 8,
    console: Console | None = None,
) -> Results:
    """What `evaluate_approaches` does inside `evaluating_into(output)`, with what `check_approaches` has seen."""
    runs = []
    with progress_bars("questions", console) as progress:
        for approach in approaches:
            try:
                asker = _Asker(approach, training, Path(output), batch_size, top_k, seed, shard_batches, progress)
                runs += [asker.run(protocol, questions[protocol]) for protocol in _asked(approach, questions)]
            finally:
                _close(approach)
    return Results(questions, runs, seed, batch_size, top_k)


class _ApproachError(Exception):
    """An approach raised the error that caused this one; errors of ours, such as a full disk, are not its fault."""


class _FitError(_ApproachError):
    """Likewise, while it learned."""


class _Asker:
    """One approach and what asks it."""

    def __init__(self, approach, training, output, batch_size, top_k, seed, shard_batches, progress):
        self.approach = approach
        self.training = training
        self.output = output
        self.batch_size = batch_size
        self.top_k = top_k
        self.seed = seed
        self.shard_batches = shard_batches
        self.progress = progress
        self.settings: dict[str, Any] | None = None
        self.fit_error: str | None = None
        self.is_fitted = not _learns(approach)

    def run(self, protocol: str, questions: list[Question]) -> Run:
        """Ask all questions of one protocol that have no answer yet."""
        name = self.approach.name
        try:
            if self.settings is None:  # once, for they may tell more after `fit`
                with _blame():
                    self.settings = self.approach.settings()
        except _ApproachError as error:
            return Run(name, protocol, error=_log(name, protocol, error))
        # What was learned and what was answered, each under all that decides it.
        learned_from = {"approach": name, "settings": self.settings, "seed": self.seed}
        if _learns(self.approach):
            learned_from["training"] = self.training.fingerprint if self.training else None
        fitted = self.output / _FITTED / name / json_digest(learned_from)
        answered_from = {"protocol": protocol, "batch_size": self.batch_size, "top_k": self.top_k}
        answered_from["questions"] = self._questions_digest(questions)
        answered_from["versions"] = {package: version(package) for package in _VERSIONS}
        store = AnswerStore(self.output / _ANSWERS / protocol / name / json_digest(learned_from | answered_from))

        order = _asking_order(questions)
        run = {"settings": self.settings}
        try:
            self._answer(store, protocol, [questions[i] for i in order], fitted)
        except _FitError as error:
            # The text alone: the error itself would keep its frames alive, and the models in them.
            self.fit_error = self.fit_error or _log(name, protocol, error)
            run["error"] = self.fit_error
        except _ApproachError as error:
            run["error"] = _log(name, protocol, error)
        else:
            run["answers"] = _in_order_of_questions(store.answers, order)
        if _fit_report(fitted).exists():
            report = read_json(_fit_report(fitted))
            run |= {"learned": report["learned"], "fitting": Cost(**report["cost"])}
        return Run(name, protocol, **run, answering=store.cost)

    def _questions_digest(self, questions):
        # Translations change nothing for an approach that does not read them, and groups never do.
        rows = [
            [q.truncated, q.missing_word, *([q.translation] * self.approach.reads_translations)] for q in questions
        ]
        return json_digest(rows)

    def _answer(self, store: AnswerStore, protocol: str, questions: list[Question], fitted: Path):
        task = self.progress.add_task(
            f"{self.approach.name} ({protocol})", total=len(questions), completed=len(store.answers)
        )
        shard, cost = [], Cost()
        # The authors' procedures propose one word, so the others shall not have more chances there.
        top_k = 1 if protocol == "paper" else self.top_k
        try:
            for start in range(len(store.answers), len(questions), self.batch_size):
                self._fit(fitted)
                batch = questions[start : start + self.batch_size]
                _seed(self.seed, self.approach.name, protocol, start // self.batch_size)
                with _blame(), CostMeter() as meter:
                    answers = _checked(self.approach.answer(batch, protocol, top_k), batch)
                shard += answers
                cost += meter.cost
                self.progress.advance(task, len(batch))
                if len(shard) >= self.shard_batches * self.batch_size:
                    store.add(shard, cost)
                    shard, cost = [], Cost()
        finally:
            if shard:
                store.add(shard, cost)

    def _fit(self, fitted: Path):
        """Let the approach learn, or load what it learned, before its first question."""
        if self.fit_error:
            raise _FitError  # it would only fail again
        if self.is_fitted:
            return
        fitted.mkdir(parents=True, exist_ok=True)
        _seed(self.seed, self.approach.name, "fit", 0)
        costs = KeptCost(fitted.with_name(f"{fitted.name}.cost.json"))
        with _blame(_FitError), CostMeter(costs.keep) as meter:
            learned = self.approach.fit(self.training, fitted)
        self.is_fitted = True
        cost = costs.finish(meter.cost)
        if not _fit_report(fitted).exists():  # otherwise it has only been loaded
            write_json(_fit_report(fitted), {"learned": learned, "cost": dataclasses.asdict(cost)})


def kept_answers(
    output: str | Path, protocol: str, approach: str, questions: Sequence[Question]
) -> Iterator[list[Answer]]:
    """What an approach answered in earlier calls: for each of its settings that all questions were answered under, the answers.

    Args:
        output: folder of the evaluation.
        protocol, approach: by name.
        questions: as they were asked; the answers come in their order.

    Raises:
        ValueError: a file is damaged.
    """
    order = _asking_order(questions)
    for folder in sorted(Path(output, _ANSWERS, protocol, approach).glob("*/")):
        answers, _ = read_answers(folder)
        if len(answers) == len(questions):
            yield _in_order_of_questions(answers, order)


def _asking_order(questions: Sequence[Question]) -> list[int]:
    """Indices of the questions, the longest first: texts of about one length make a batch."""
    return sorted(range(len(questions)), key=lambda i: (-len(questions[i].truncated), i))


def _in_order_of_questions(answers: Sequence[Answer], order: list[int]) -> list[Answer]:
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]


def _close(approach: Approach):
    try:
        approach.close()
    except Exception:  # its answers are there all the same, and the other approaches wait
        logger.exception("%s could not be closed.", approach.name)
    free_memory()


def _learns(approach):
    return type(approach).fit is not Approach.fit


def _fit_report(fitted: Path) -> Path:
    return fitted.with_name(f"{fitted.name}.json")


def _asked(approach: Approach, protocols) -> list[str]:
    return [protocol for protocol in PROTOCOLS if protocol in approach.protocols and protocol in protocols]


def _seed(seed: int, *what: Any):
    """Seed torch by what is drawn for, so that it does not matter what was drawn before."""
    text = " ".join(map(str, (seed, *what)))
    torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def _checked(answers: Sequence[Answer], batch: list[Question]) -> list[Answer]:
    """The answers in types that a JSON file gives back as they were."""
    if len(answers) != len(batch):
        raise ValueError(
            f"It gave {len(answers)} answers to {len(batch)} questions; one is expected for each, in order."
        )
    checked = []
    for answer in answers:
        if not isinstance(answer, Answer) or isinstance(answer.words, str):
            raise TypeError(f"It gave {answer!r} where an Answer with a tuple of words is expected.")
        if wrong := [word for word in answer.words if not isinstance(word, str)]:
            raise TypeError(f"It proposed {wrong[0]!r} where a word is expected, as a string.")
        log_probability = None if answer.log_probability is None else float(answer.log_probability)
        if log_probability is not None and not log_probability <= _ROUNDING:
            raise ValueError(f"It gave a log-probability of {log_probability}; at most 0 is possible.")
        checked.append(Answer(tuple(answer.words), log_probability, answer.translation))
    return checked


def _log(name: str, protocol: str, error: _ApproachError) -> str:
    cause = error.__cause__
    logger.error("%s failed under the protocol %r.", name, protocol, exc_info=cause)
    return f"{type(cause).__name__}: {cause}"


@contextlib.contextmanager
def _blame(kind: type[_ApproachError] = _ApproachError) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise kind from error


def check_approaches(approaches: Sequence[Approach], questions: dict[str, list[Question]], **counts: int):
    """ValueError for what `evaluate_approaches` refuses; `counts` are numbers that must be at least 1, by name."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}.")
    if unknown := set(questions) - set(PROTOCOLS):
        raise ValueError(f"Unknown protocol {', '.join(sorted(unknown))}; there are {', '.join(PROTOCOLS)}.")
    for protocol in questions:
        if not questions[protocol]:
            raise ValueError(f"There are no questions under the protocol {protocol!r}; hand in text with sentences.")
    names = [approach.name for approach in approaches]
    if not any(_asked(approach, questions) for approach in approaches):
        raise ValueError(
            f"None of the approaches ({', '.join(names) or 'there are none'}) takes part in the protocols asked for "
            f"({', '.join(questions) or 'none'})."
        )
    for name in names:
        if not is_plain_name(name):
            raise ValueError(
                f"An approach's name is also a folder's: letters, digits, '_', '.', '+', '-'; got {name!r}."
            )
        if names.count(name) > 1:
            raise ValueError(f"{names.count(name)} approaches are called {name!r}; give each a name of its own.")
    for approach in approaches:
        for protocol in _asked(approach, questions):
            if approach.reads_translations and any(question.translation is None for question in questions[protocol]):
                raise ValueError(
                    f"The approach {approach.name!r} reads translations, and questions under {protocol!r} have none; "
                    "translate them with `tall_hf.data.translate_corpus`."
                )
