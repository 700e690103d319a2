"""The tasks: what each makes of a row, tasks of one's own in YAML, and what is refused."""

import pytest

from tall_hf.classification import TASKS, ClassificationTask, read_task


def test_each_task_has_what_its_rows_need():
    assert set(TASKS) == {"xnli", "indicxnli", "sinhala_news", "amazon_reviews"}
    for name, task in TASKS.items():
        assert task.name == name and task.hub is not None and len(set(task.labels.values())) == len(task.labels)
        assert "test" in task.hub.splits and task.prompt == "" and len(task.hub.revision) == 40
    assert TASKS["indicxnli"].labels == TASKS["xnli"].labels and TASKS["indicxnli"].source == TASKS["xnli"].source
    assert "en" in TASKS[TASKS["indicxnli"].train_task].languages and "en" not in TASKS["indicxnli"].languages
    assert len(TASKS["xnli"].languages) == 15 and len(TASKS["indicxnli"].languages) == 11


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "Entailment"), ("1", "Neutral"), ("contradiction", "Contradiction"), (" Neutral ", "Neutral"), (1.0, None)],
)
def test_a_label_is_written_as_its_number_or_its_name(value, label):
    assert TASKS["xnli"].verbalize(value) == label


@pytest.mark.parametrize("value", [-1, 3, None, "", "maybe", [0], "true", True, False])
def test_an_unknown_label_is_none(value):
    assert TASKS["xnli"].verbalize(value) is None


def test_a_task_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nsource: '{title}: {body}'\nprompt: ' Topic of {title}:'\nlabel_column: topic\n"
        "labels: {s: sports, 1: news}\nlanguages: [en, he]\ndata_files: rows/{language}.csv\n",
        encoding="utf-8",
    )
    task = read_task(str(path))
    assert task == ClassificationTask(
        name="mine",
        source="{title}: {body}",
        prompt=" Topic of {title}:",
        label_column="topic",
        labels={"s": "sports", 1: "news"},
        languages=("en", "he"),
        data_files=str(tmp_path / "rows" / "{language}.csv"),
    )
    assert task.text_columns == ["title", "body"]
    path.write_text("name: mine\nsource: '{text}'\nlabels: [sports, news]\n", encoding="utf-8")
    assert read_task(str(path)).labels == {"sports": "sports", "news": "news"}
    path.write_text("name: mine\nsource: '{text}'\nlabels: {0: ' bad', 1: ' good'}\n", encoding="utf-8")
    assert [read_task(str(path)).verbalize(value) for value in ("0", "Good")] == [" bad", " good"]
    path.write_text("name: mine\nsource: '{text}'\nchoices_column: answers\n", encoding="utf-8")
    assert read_task(str(path)).choices_column == "answers"
    # Columns of truth values, and quoted words that YAML would take for such.
    path.write_text("name: mine\nsource: '{text}'\nlabels: {true: 'yes', false: 'no'}\n", encoding="utf-8")
    assert [read_task(str(path)).verbalize(value) for value in (True, "False")] == ["yes", "no"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not a YAML file"),
        ("- a", "must hold `name: value` lines, got a list"),
        ("", "must give the task's `(name|source)` as text"),
        ("name: mine\nsource: '{text}'\nlabels: {0: a, 0: b, 1: c}", "'0' is set twice"),
        ("name: mine\nsource: '{text}'\nlabel: 1", "has label; a task has .*label_column"),
        ("source: '{text}'\nlabels: [a, b]", "must give the task's `name`"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nprompt: 3", "must give the task's `prompt` as text"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\ntrain_task: xnli", "has train_task; a task has"),
        ("name: mine\nsource: '{text}'", "either `labels`, or a `choices_column`"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nchoices_column: c", "either `labels`"),
        ("name: mine\nsource: '{text}'\nlabels: [a, a]", "two or more different labels"),
        ("name: mine\nsource: '{text}'\nlabels: {0: a, 1: a}", "two or more different labels"),
        ("name: mine\nsource: '{text}'\nlabels: 3", "`labels` is a list"),
        ("name: mine\nsource: '{text}'\nlabels: [yes, no]", "a label is True: YAML takes yes.* put it in quotes"),
        ("name: mine\nsource: '{text}'\nlabels: {0: no, 1: yes}", "a label is False: YAML takes yes"),
        ("name: mine\nsource: '{text}'\nlabels: {0: null, 1: b}", "a label must be text, got None"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nlanguages: [en, no]", "a language is False: YAML takes yes"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nlanguages: en", "must be a list such as .en, he., got 'en'"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nlanguages: 3", "must be a list such as"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nparallel: 'no'", "`parallel` must be true or false, got 'no'"),
        ("name: mine\nsource: '{text}'\nlabels: [a, b]\nnested: 1", "`nested` must be true or false, got 1"),
        ("name: mine\nsource: 'text'\nlabels: [a, b]", "names no column"),
        ("name: mine\nsource: '{text'\nlabels: [a, b]", "is wrong: expected '}'"),
        ("name: mine\nsource: '{text.upper}'\nlabels: [a, b]", "stands the name of a column"),
        ("name: mine\nsource: '{text:d}'\nlabels: [a, b]", "has {text:d}; between braces stands the name of a column"),
        ("name: mine\nsource: '{text!r}'\nlabels: [a, b]", "has {text!r}; between braces stands the name of a column"),
        ("name: mine\nsource: '{text}'\nprompt: '{}'\nlabels: [a, b]", "stands the name of a column"),
        ("name: a/b\nsource: '{text}'\nlabels: [a, b]", "letters, digits, '_' and '-'"),
    ],
)
def test_a_file_that_describes_no_task(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_task(str(path))


def test_a_task_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no task 'xlni'; there are xnli, indicxnli"):
        read_task("xlni")
    with pytest.raises(FileNotFoundError):
        read_task(str(tmp_path / "mine.yaml"))
