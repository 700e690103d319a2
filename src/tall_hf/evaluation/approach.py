"""What every approach to the missing word shares: the question, the answer, and how an approach is trained and asked."""

import inspect
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from transformers import PreTrainedModel

from tall_hf.fingerprints import text_digest


logger = logging.getLogger(__name__)

# Gives a model in evaluation mode and its tokenizer, or a TALL and its processor. For an approach that only asks they may
# be at hand already; one that trains calls it for each fresh start, and changes the model that it gets.
Loader: TypeAlias = Callable[[], tuple[PreTrainedModel, Any]]

# "paper": each approach as the authors' code has it (sampling, one token, tokens stripped of '.' and ',').
# "clean": the whole word, by beams, punctuation aside. See `tall_hf.evaluation.task`.
PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Question:
    """A sentence without its last word.

    Attributes:
        truncated: the sentence up to the missing word.
        missing_word: that word.
        translation: of `truncated`, by the frozen LR→HR translator; None if no approach asked for it.
        group: what the report also splits by, such as a domain; None if there are no groups.
    """

    truncated: str
    missing_word: str
    translation: str | None = None
    group: str | None = None

    @property
    def sentence(self) -> str:
        return f"{self.truncated} {self.missing_word}"


@dataclass(frozen=True)
class Answer:
    """What an approach says to a question.

    Attributes:
        words: the words it proposes, the best first, each once; empty if it has none. Scoring normalises them.
        log_probability: natural logarithm of the probability that it gives to the question's missing word, as the next
            whole word; None if the approach gives no probabilities.
        translation: the high-resource sentence that the answer was read from, if there is one.
    """

    words: tuple[str, ...]
    log_probability: float | None = None
    translation: str | None = None


@dataclass(frozen=True)
class TrainingText:
    """What `tall prepare` made, as text: what approaches that learn may learn from.

    Attributes:
        train: rows of `sentence`, `truncated`, `missing_word` and `translation` (of `truncated`).
        validation: likewise; for choosing settings such as a learning rate.
        fingerprint: stands for both.
    """

    train: Dataset
    validation: Dataset | None
    fingerprint: str


def read_column(rows: Dataset | None, name: str) -> Iterator[str]:
    """The texts of a column, some rows at a time; none of no rows."""
    if rows:
        for batch in rows.select_columns(name).iter(1000):
            yield from batch[name]


def missing_training(training: TrainingText | None, validation: bool = False) -> str | None:
    """What an approach that learns lacks, and what to run for it; None if nothing.

    Args:
        training: what it would learn from.
        validation: whether it chooses its settings on validation text.
    """
    if training is None:
        return (
            "it learns from a training text; run `tall prepare TEXT --model MODEL --output FOLDER`, then pass `--dataset "
            "FOLDER`"
        )
    if validation and not training.validation:
        return (
            "it chooses its settings on validation sentences, and the training text has none; run `tall prepare` with a "
            "`--validation-share` above 0"
        )
    return None


def check_training(training: TrainingText | None, name: str, validation: bool = False):
    """ValueError if the approach `name` lacks something to learn from, see `missing_training`."""
    if reason := missing_training(training, validation):
        raise ValueError(f"The approach {name!r} cannot be asked: {reason}.")


def check_fitted(learned: Any, name: str):
    """RuntimeError if the approach `name` has nothing of what `fit` leaves in `learned`."""
    if not learned:
        raise RuntimeError(f"`{name}` has learned nothing yet; call `fit` first.")


class Approach(ABC):
    """One way to find the missing word.

    A user's own approach needs a `name` and `answer`; what learns from text overrides `fit` too. The runner asks questions
    sorted by length, a batch at a time, seeds torch before each batch, and keeps finished answers, so `answer` must be a
    function of its arguments and torch's random state alone.

    Attributes:
        name: as in the table and in file names.
        protocols: those it takes part in.
        reads_translations: whether `Question.translation` must be there.
    """

    name: str
    protocols: Sequence[str] = PROTOCOLS
    reads_translations: bool = False

    def settings(self) -> dict[str, Any]:
        """JSON values that stand for all that decides the answers; kept answers of other settings are not used again.

        Asked for once, before `fit`. The name, the seed, the questions, the versions of this package and of transformers
        and, where `fit` is overridden, the training text decide too, and need not be among them.

        Unless it is overridden, the source code of the class stands for it, so an edited approach is asked anew. Override
        it where more decides: arguments, files, models. Without source code, as in an interactive session, answers are
        not used a second time.
        """
        classes = [kind for kind in type(self).__mro__ if issubclass(kind, Approach) and kind is not Approach]
        try:
            source = "".join(map(inspect.getsource, classes))
        except (OSError, TypeError):
            logger.warning(
                "The source code of %s cannot be read, so nothing tells whether its kept answers are still its own, and all "
                "are asked anew. Define it in a file, or let it have `settings()`.",
                type(self).__name__,
            )
            return {"source": uuid.uuid4().hex}
        return {"source": text_digest(source)}

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        """Learn from text, or load what an earlier call learned; called once before the first question.

        Args:
            training: the text; None if there is none.
            folder: for what was learned, this approach's own; what is in it was written by an earlier call. An
                interrupted call goes on where it stopped.

        Returns:
            What a reader should know about it, as JSON values, such as `{"trials": 3, "seconds": 120.0,
            "learning_rate": 1e-4}`; empty if nothing was learned.

        Raises:
            ValueError: it must learn and `training` is None; the message says what to run.
        """
        return {}

    @abstractmethod
    def answer(self, questions: Sequence[Question], protocol: str, top_k: int = 5) -> list[Answer]:
        """Answer a batch of questions.

        Args:
            questions: of similar length.
            protocol: one of `protocols`.
            top_k: how many words to propose at most; under "paper" one is enough.

        Returns:
            One answer a question, in their order.
        """

    def close(self) -> None:  # noqa: B027 - most approaches hold nothing
        """Let go of models; called after the last question."""
