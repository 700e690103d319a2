"""`tall fusion` from end to end on tiny models: rows of a task and of pairs, a table of languages, what is refused."""

import json

import pytest
import stand_ins
from typer.testing import CliRunner

from tall_hf.classification import report
from tall_hf.cli import app
from tall_hf.data.examples import load_prepared_examples


@pytest.fixture(scope="module")
def model(fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fusion") / "model"
    made, processor = fused()
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def tall(monkeypatch):
    monkeypatch.setattr(report, "plot_languages", lambda results, path: path)  # drawn in another test

    def run(*arguments):
        return CliRunner().invoke(app, ["fusion", *map(str, arguments)], env={"COLUMNS": "200"})

    return run


def test_rows_of_a_task_then_a_table_of_languages(tall, model, fused, tmp_path):
    files = stand_ins.xnli(tmp_path / "xnli", repeat=10)
    done = tall(
        "prepare", model, "--task", "xnli", "--data-files", files, "--output", tmp_path / "rows", "--source-lang", "eng_Latn",
        "--validation-share", "0.5", "--max-examples", "30",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = load_prepared_examples(tmp_path / "rows", fused()[1])
    assert sum(map(len, rows.values())) == 30
    made_of = json.loads((tmp_path / "rows" / "fusion_rows.json").read_text(encoding="utf-8"))
    assert (made_of["task"], made_of["language"], made_of["max_examples"]) == ("xnli", "en", 30)

    codes = ["--source-lang", "he=heb_Hebr", "--source-lang", "en=eng_Latn", "--language", "he", "--language", "en"]
    out = ["--task", "xnli", "--data-files", files, "--output", tmp_path / "out", "--max-questions", "5", *codes]
    done = tall("evaluate", f"a={model}", f"b={model}", *out)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(results["languages"]) == ["he", "en"] and list(results["average"]["models"]) == ["a", "b"]
    # One model under two names.
    assert results["average"]["models"]["b"]["comparison"]["difference"] == 0
    assert "a accuracy % [95%]" in done.output and "average" in done.output
    assert tall("evaluate", model, *out, "--normalize", "tokens", "--no-end").exit_code == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(results["average"]["models"]) == ["fusion"]
    assert results["scoring"] == {"include_end": False, "normalize": "tokens"}


def test_pairs_of_another_number_of_columns_are_refused(tall, model, tmp_path):
    (tmp_path / "three.tsv").write_text("דנה\tDana\tx\nיוסי\tYossi\ty\n", "utf-8")
    done = tall("prepare", model, "--pairs", tmp_path / "three.tsv", "--output", tmp_path / "rows")
    assert done.exit_code == 1 and "has 3 columns, where 2 are expected" in " ".join(done.output.split())


def test_a_task_of_ones_own_and_translation_pairs(tall, model, tmp_path):
    (tmp_path / "mine.csv").write_text(
        "text,topic\nDana lives in Haifa,1\nHello world,0\nA big sea,0\n", encoding="utf-8"
    )
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nsource: '{text}'\nprompt: 'Topic:'\nlabel_column: topic\nlabels: {0: sea, 1: house}\n"
        "languages: [en]\ndata_files: mine.csv\n",
        encoding="utf-8",
    )
    done = tall(
        "prepare", model, "--task", tmp_path / "mine.yaml", "--output", tmp_path / "rows", "--validation-share", 0
    )
    assert done.exit_code == 0, done.output
    done = tall(
        "evaluate",
        model,
        "--task",
        tmp_path / "mine.yaml",
        "--output",
        tmp_path / "out",
        "--source-lang",
        "en=eng_Latn",
    )
    assert done.exit_code == 0 and "66.7" in done.output, done.output
    (tmp_path / "pairs.tsv").write_text("שלום\tHello\nדנה גרה\tDana lives\n", encoding="utf-8")
    done = tall(
        "prepare", model, "--pairs", tmp_path / "pairs.tsv", "--output", tmp_path / "pairs", "--validation-share", 0,
        "--prompt", "In English:",
    )  # fmt: skip
    assert done.exit_code == 0 and "2 train rows" in done.output, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "MODEL", "--output", "OUT"], "either `--task` or `--pairs`"),
        (
            ["prepare", "MODEL", "--output", "OUT", "--task", "xnli", "--prompt", "a"],
            "--prompt does not go with --task",
        ),
        (
            ["prepare", "MODEL", "--output", "OUT", "--pairs", "a.tsv", "--language", "de"],
            "--language does not go with",
        ),
        (["prepare", "MODEL", "--output", "OUT", "--pairs", "a.tsv"], "There is no file a.tsv"),
        (["prepare", "MODEL", "--output", "OUT", "--task", "nli"], "no task 'nli'; there are xnli"),
        (["prepare", "MODEL", "--output", "OUT", "--task", "sinhala_news"], "no rows in 'en'"),
        (["prepare", "MODEL", "--output", "OUT", "--task", "xnli"], "cannot be read from the Hub"),
        (["prepare", "./nowhere", "--output", "OUT", "--task", "xnli"], "There is no folder ./nowhere"),
        (
            ["train", "--model", "MODEL", "--dataset", "d", "--output_dir", "OUT", "--lora_r", "4"],
            "`lora_r` is a setting of `tall train`: of this model encoder and LLM stay frozen",
        ),
        (
            ["train", "--model", "MODEL", "--dataset", "d", "--output_dir", "OUT", "--set", "unfreeze=[llm]"],
            "`unfreeze` is a setting of `tall train`",
        ),
        (["evaluate", "MODEL", "--output", "OUT", "--task", "xnli", "--language", "si"], "no rows in 'si'"),
        (["evaluate", "MODEL", "--output", "OUT", "--task", "xnli", "--source-lang", "he"], "LANGUAGE=CODE, got 'he'"),
        (["evaluate", "MODEL", "a=b", "--output", "OUT", "--task", "xnli"], "given as NAME=FOLDER"),
    ],
)
def test_what_is_refused_in_one_line(tall, model, tmp_path, arguments, message):
    places = {"MODEL": model, "OUT": tmp_path / "out"}
    done = tall(*(places.get(argument, argument) for argument in arguments))
    assert done.exit_code == 1 and message in " ".join(done.output.split())
    assert "Traceback" not in done.output and not (tmp_path / "out").exists()
