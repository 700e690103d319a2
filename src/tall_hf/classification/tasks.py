"""Classification tasks: where rows are, how one becomes a source, a prompt and labels, and in which languages it is asked."""

import dataclasses
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tall_hf.yaml_files import read_mapping


@dataclass(frozen=True)
class HubRows:
    """Where the rows of a task lie on the Hub; `{language}` and `{split}` in the templates are filled in.

    Attributes:
        repository: of the dataset.
        revision: which commit; the newest when not given.
        config: template of the name that `datasets.load_dataset` knows a language by; None for a dataset of one.
        files: template of the files of a split, in place of `config`: nothing else is fetched then.
        splits: what a split ("train", "validation", "test") is called there; one that is not here is not there.
    """

    repository: str
    revision: str | None = None
    config: str | None = None
    files: str | None = None
    splits: dict[str, str] = field(
        default_factory=lambda: {name: name for name in ("train", "validation", "test")}, hash=False
    )


@dataclass(frozen=True)
class ClassificationTask:
    """A task of choosing one of several labels for a text.

    Templates name columns in braces, such as "Premise: {premise}".

    Attributes:
        name: of letters, digits, '_' and '-'; folders are called so.
        source: template of what the encoder reads.
        labels: what stands in the label column, and the label as the LLM writes it. A row may also hold the label itself, in
            any case.
        prompt: template of what the LLM reads behind the source.
        label_column: the column of the right label.
        choices_column: the column of a list of labels to choose from, in place of `labels`, where each question has its own.
        languages: those it is asked in.
        train_language: the language that is trained on.
        train_task: the task whose rows are trained on, where this one has none in that language.
        parallel: whether the questions are the same in every language, in the same order.
        nested: whether a .json file is one object, of which the only value is the list of rows.
        hub: where the rows are on the Hub; None for local files only.
        data_files: template of local files' path with `{language}` and `{split}`; what is not in it is the same for all.
    """

    name: str
    source: str
    labels: dict[Any, str] | None = field(default=None, hash=False)
    prompt: str = ""
    label_column: str = "label"
    choices_column: str | None = None
    languages: tuple[str, ...] = ()
    train_language: str = "en"
    train_task: str | None = None
    parallel: bool = False
    nested: bool = False
    hub: HubRows | None = None
    data_files: str | None = None

    def __post_init__(self):
        if not self.name or not set(self.name) <= set(string.ascii_letters + string.digits + "_-"):
            raise ValueError(f"A task's name is of letters, digits, '_' and '-', got {self.name!r}.")
        if (self.labels is None) == (self.choices_column is None):
            raise ValueError(
                f"The task {self.name!r} must have either `labels`, or a `choices_column` that holds them for each question."
            )
        if self.labels is not None:
            written = list(self.labels.values())
            if len(set(written)) < 2 or len(set(written)) < len(written) or not all(written):
                raise ValueError(f"The task {self.name!r} needs two or more different labels, got {written}.")
        if not template_columns(self.source):
            raise ValueError(
                f"The source {self.source!r} of the task {self.name!r} names no column; write it as in '{{text}}'."
            )
        template_columns(self.prompt)

    @property
    def text_columns(self) -> list[str]:
        """Columns that the source and the prompt are made of."""
        return list(dict.fromkeys(template_columns(self.source) + template_columns(self.prompt)))

    def verbalize(self, value: Any) -> str | None:
        """The label for what stands in the label column; None if there is no such label."""
        # Python counts True among the integers.
        if isinstance(value, str | int) and not isinstance(value, bool) and value in self.labels:
            return self.labels[value]
        # Files without types hold numbers as text, and some datasets names in place of numbers.
        text = str(value).strip().lower()
        for key, label in self.labels.items():
            if text in (str(key).strip().lower(), label.strip().lower()):
                return label
        return None


def _as_text(value: Any, what: str) -> str:
    # YAML reads yes, no, on and off as truth values, and the LLM would write "True" for a label "yes".
    if isinstance(value, bool):
        raise ValueError(
            f"{what} is {value}: YAML takes yes, no, on, off, true and false for truth values; put it in quotes."
        )
    if not isinstance(value, str | int | float):
        raise ValueError(f"{what} must be text, got {value!r}.")
    return str(value)


def template_columns(template: str) -> list[str]:
    """The columns that a template names.

    Raises:
        ValueError: braces that do not match, or with more than a column's name between them.
    """
    try:
        found = [parts for _, *parts in string.Formatter().parse(template) if parts[0] is not None]
    except ValueError as error:
        raise ValueError(f"The template {template!r} is wrong: {error}. Columns stand in braces.") from error
    for name, layout, conversion in found:
        if not name.isidentifier() or layout or conversion:
            written = "".join((name, f"!{conversion}" if conversion else "", f":{layout}" if layout else ""))
            raise ValueError(
                f"The template {template!r} has {{{written}}}; between braces stands the name of a column alone."
            )
    return [name for name, *_ in found]


_ENTAILMENT = {0: "Entailment", 1: "Neutral", 2: "Contradiction"}
_NLI_SOURCE = "Premise: {premise} Hypothesis: {hypothesis} Label:"

# The four tasks of arXiv 2508.09091, with the words of its authors' experiments around the text. All of a row is the
# source, and the prompt is empty, as there. Where each fact about files, columns and labels is from stands beside it; none
# of the repositories has been read by this code.
TASKS = {
    task.name: task
    for task in (
        # Parquet, for each language train (392,702 rows), validation (2,490) and test (5,010), `premise` and `hypothesis` as
        # strings, `label` as a ClassLabel (entailment, neutral, contradiction): the card, and a listing of the files.
        ClassificationTask(
            name="xnli",
            source=_NLI_SOURCE,
            labels=_ENTAILMENT,
            languages=("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"),
            parallel=True,
            hub=HubRows(
                "facebook/xnli", "b8dd5d7af51114dbda02c0e3f6133f332186418e", files="{language}/{split}-*.parquet"
            ),
        ),
        # A loading script over forward/{train,dev,test}/xnli_{language}.json, each an object of one list of rows: the script.
        # `datasets` runs no scripts since 4.0, so the files are read themselves. The list is called train, validation or test
        # (so in the dev folder too), and `label` is XNLI's number: the dataset's authors' code that writes and reads the files.
        # There is no English among them. Of Tamil's validation rows the Hub counts 3,238, of the others' 2,490.
        ClassificationTask(
            name="indicxnli",
            source=_NLI_SOURCE,
            labels=_ENTAILMENT,
            languages=("as", "bn", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te"),
            train_task="xnli",
            parallel=True,
            nested=True,
            hub=HubRows(
                "Divyanshu/indicxnli",
                "7092c27872e919f31d0496fb8b9c47bd2cba3f6c",
                files="forward/{split}/xnli_{language}.json",
                splits={"train": "train", "validation": "dev", "test": "test"},
            ),
        ),
        # One CSV of about 3,330 rows without a split, columns `comments` and `labels` (0 to 4): a listing, and code that reads
        # it. Nothing is trained on it, so all of it is asked. The card names the categories in another order than the labels
        # have. What they stand for was read off the rows, in a copy of the file (same name, head and size) in the GitHub
        # repository rikzyj/NLP_CW2, commit 66ca83d: 0 has bonds, exports and start-ups, 1 parties and ministers, 2 film and
        # television, 3 cricket and football, 4 phones and inventions. The English news that the paper's authors trained on
        # is not in it: bring a file of the same columns.
        ClassificationTask(
            name="sinhala_news",
            source="News Sentence: {comments} Category:",
            labels={0: "Business", 1: "Political", 2: "Entertainment", 3: "Sports", 4: "Technology"},
            label_column="labels",
            languages=("si",),
            hub=HubRows(
                "NLPC-UOM/Sinhala-News-Category-classification",
                "7fb2f514ea683c5282dfec0a9672ece8de90ac50",
                splits={"test": "train"},
            ),
        ),
        # `amazon_reviews_multi` is withdrawn, and mteb/amazon_reviews_multi has a loading script. This copy of it is parquet, a
        # configuration for each language with train (200,000), validation (5,000) and test (5,000), `text` as a string (title,
        # empty line, review) and `label` as int64 (0 to 4, one to five stars): the card; the names of the labels are the paper's
        # authors'. The revision is the one that MTEB reads. Its reviews differ from language to language.
        ClassificationTask(
            name="amazon_reviews",
            source="Review: {text} Label:",
            labels={0: "Very Negative", 1: "Negative", 2: "Neutral", 3: "Positive", 4: "Very Positive"},
            languages=("de", "en", "es", "fr", "ja", "zh"),
            hub=HubRows(
                "mteb/AmazonReviewsClassification", "6b5d328eaae8ef408dd7d775040245cf86f92e9d", config="{language}"
            ),
        ),
    )
}


def read_task(spec: str) -> ClassificationTask:
    """One of `TASKS` by its name, or a task of your own from a YAML file with the fields of ClassificationTask.

    Raises:
        ValueError: there is no such task, or the file does not describe one.
        FileNotFoundError: there is no such file.
    """
    if spec in TASKS:
        return TASKS[spec]
    path = Path(spec)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"There is no task {spec!r}; there are {', '.join(TASKS)}, or name a YAML file of your own.")
    fields = read_mapping(path)
    known = {one.name for one in dataclasses.fields(ClassificationTask)} - {"hub", "train_task"}
    if unknown := set(fields) - known:
        raise ValueError(f"{path} has {', '.join(map(str, unknown))}; a task has {', '.join(sorted(known))}.")
    for name in known - {"labels", "languages", "parallel", "nested"}:
        if not isinstance(fields.get(name, "" if name not in ("name", "source") else None), str):
            raise ValueError(f"{path} must give the task's `{name}` as text.")
    for name in ("parallel", "nested"):
        if not isinstance(fields.get(name, False), bool):
            raise ValueError(f"{path}: `{name}` must be true or false, got {fields[name]!r}.")
    # A list of labels stands for labels that are in the column as they are written.
    if isinstance(fields.get("labels"), list):
        fields["labels"] = {_as_text(label, f"{path}: a label"): str(label) for label in fields["labels"]}
    if fields.get("labels") is not None:
        if not isinstance(fields["labels"], dict):
            raise ValueError(f"{path}: `labels` is a list of labels, or what is in the column and the label for each.")
        fields["labels"] = {value: _as_text(label, f"{path}: a label") for value, label in fields["labels"].items()}
    languages = fields.get("languages") or []
    if not isinstance(languages, list):
        raise ValueError(f"{path}: `languages` must be a list such as [en, he], got {languages!r}.")
    fields["languages"] = tuple(_as_text(language, f"{path}: a language") for language in languages)
    if fields.get("data_files"):
        # Beside the YAML file, wherever the command is called.
        fields["data_files"] = str(path.parent / fields["data_files"])
    return ClassificationTask(**fields)
