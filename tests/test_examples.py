"""The example scripts that need no training."""

import itertools
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from tall_hf import compose, publishing
from tall_hf.classification import read_task, read_training_examples
from tall_hf.classification.data import read_examples
from tall_hf.microworld import VILLAGE, World, component_path
from tall_hf.microworld.architectures import marian_tokenizer, new_translator
from tall_hf.microworld.build_translators import multilingual_text
from tall_hf.microworld.training import ANSWER, save_component


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(("seed", "language"), [(0, "he"), (3, "he"), (0, "tr")])
def test_the_little_worlds_text_and_its_held_out_questions(seed, language, capsys, monkeypatch):
    def lines(*arguments):
        options = ["--seed", str(seed), *(("--language", language) if language != "he" else ())]
        monkeypatch.setattr(sys, "argv", ["microworld_text.py", *options, *arguments])
        runpy.run_path(str(EXAMPLES / "microworld_text.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    train, held_out = World(language=language).records(seed)
    assert lines() == [record.text for record in train]
    assert [json.loads(line) for line in lines("--held-out")] == [
        {"text": record.text, "group": record.kind} for record in held_out
    ]


def test_a_tall_of_the_little_world_is_asked_with_other_translations(tmp_path, monkeypatch):
    path = str(EXAMPLES / "microworld_translations.py")
    _, records = World().records(0)
    kinds = runpy.run_path(path)["given_translations"](records, 0)
    assert all(len(texts) == len(records) for texts in kinds.values())
    for record in records:
        reference, shuffled, of_another = (
            kinds[kind][record.truncated] for kind in ("reference", "shuffled", "of_another")
        )
        assert reference == record.english_truncated
        assert sorted(shuffled.split()) == sorted(reference.split())
        # Of the same relation and of somebody else.
        assert World().people[record.entity].english not in of_another
        assert of_another in {one.english_truncated for one in records if one.relation == record.relation}
    assert sum(kinds["shuffled"][one.truncated] != one.english_truncated for one in records) > 0.9 * len(records)

    parts = {role: component_path(role) for role in ("lr_hr", "llm", "hr_lr")}
    publishing.save(*compose(**parts, source_bridge="gated", warm_start=True), tmp_path / "tall")
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", [path, str(tmp_path / "tall"), "--output", out, "--max-questions", "3"])
    runpy.run_path(path, run_name="__main__")
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert all(f"| {name} " in report for name in ("tall", *kinds))


@pytest.mark.parametrize(
    ("options", "few", "kept_back", "prompt"), [((), {}, 25, ""), (("--village",), VILLAGE, 9, ANSWER)]
)
def test_the_little_worlds_questions_are_read_as_a_task(options, few, kept_back, prompt, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["microworld_questions.py", str(tmp_path), *options])
    runpy.run_path(str(EXAMPLES / "microworld_questions.py"), run_name="__main__")
    task = read_task(str(tmp_path / "microworld.yaml"))
    assert task.prompt == prompt
    known, _ = World(**few).questions(in_english=True)
    rows = read_training_examples(task)
    validation = read_examples(task, "en", "validation")
    in_training, in_validation = set(rows["text"][:]), set(validation["text"][:])
    # A quarter of the questions about people kept back is asked, and none about them is trained on.
    assert len(rows) + 4 * len(validation) == len(known) and len(validation) == kept_back * len(World().relations)
    people = World(**few).people

    def named(texts):
        return {person.english for person in people if any(person.english in text for text in texts)}

    assert len(named(in_validation)) == kept_back and named(in_training).isdisjoint(named(in_validation))
    of_known = {one.text: one.label for one in known}
    assert [label.strip() for label in rows["answer"]] == [of_known[text] for text in rows["text"]]
    for language in ("he", "tr"):
        asked_before, held_out = World(language=language, **few).questions()
        asked = read_examples(task, language)
        assert asked["text"][:] == [one.text for one in held_out]
        assert all(answer in choices for answer, choices in zip(asked["answer"], asked["choices"], strict=True))
        # The same facts as in English, in the same order.
        chosen = read_examples(task, language, "validation")
        assert chosen["answer"][:] == validation["answer"][:]
        assert set(chosen["text"]) <= {one.text for one in asked_before}


def test_what_a_mapping_could_do_is_measured_without_training(tmp_path, capsys, monkeypatch):
    pairs = list(itertools.islice(multilingual_text(["he", "tr", "en"], seed=0, text_seed=0), 1500))
    sentences = [text for row in pairs for pair in row.values() for text in pair]
    tokenizer = marian_tokenizer(sentences, None, "mul", "en", tmp_path, vocab_size=3000)
    torch.manual_seed(0)
    save_component(new_translator(tokenizer), tokenizer, tmp_path)
    monkeypatch.setattr(sys, "argv", ["microworld_mapping.py", str(tmp_path), "--people", "3"])
    runpy.run_path(str(EXAMPLES / "microworld_mapping.py"), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    shares = {what: float(share.strip("%")) for what, share in rows[1:]}
    assert shares["the question's own tokens"] == 100
    # The random encoder knows English words by their embeddings alone, and no word of Hebrew is like one of them.
    assert shares["of the mapped vectors all but the names"] > 60
    assert (
        max(
            shares["last layer, linear map: he"],
            shares["names mapped out of he, else the question's own English tokens"],
        )
        < 40
    )
    assert shares["the question's own tokens, and a vector of zeros behind them"] < 60
    assert len(shares) == 5 + 3 * 3 + 4


def test_settings_are_chosen_by_their_mean_over_languages_and_seeds(tmp_path, capsys, monkeypatch):
    # Two people with two questions each; by model and language, which of the four are right.
    right = {
        "last_0.005_0.001-0": {"en": "1111", "he": "0000"},
        "last_0.005_0.001-1": {"en": "0000", "he": "0000"},
        "last_0.001_0.001-0": {"en": "1100", "he": "1100"},
        "last_0.001_0.001-1": {"en": "1100", "he": "1000"},
        "token_softmax_0.005_0.00003-0": {"en": "0000", "he": "1000"},
        "token_softmax_0.005_0.00003-1": {"en": "1110", "he": "1000"},
    }
    results = {"split": "test", "models": {name: f"out/{name}" for name in right}, "languages": {}}
    results["task"] = {"data_files": str(tmp_path / "{language}-{split}.jsonl"), "train_language": "en"}
    for language in ("en", "he"):
        rows = [json.dumps({"relation": relation}) + "\n" for relation in ("city", "food") * 2]
        (tmp_path / f"{language}-test.jsonl").write_text("".join(rows), encoding="utf-8")
        models = results["languages"][language] = {"models": {}}
        for name, answers in right.items():
            questions = [{"answer": "a", "prediction": "a" if one == "1" else "b"} for one in answers[language]]
            (tmp_path / f"{name}-{language}.json").write_text(json.dumps({"questions": questions}), encoding="utf-8")
            models["models"][name] = {"predictions": f"{name}-{language}.json"}
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")

    def lines(*arguments):
        monkeypatch.setattr(sys, "argv", ["fusion_table.py", str(tmp_path), *arguments])
        runpy.run_path(str(EXAMPLES / "fusion_table.py"), run_name="__main__")
        return capsys.readouterr().out.strip().splitlines()

    # 7 of 16 beside 4, and the only one of its kind.
    assert lines("--best") == [
        *(f"last_0.001_0.001-{seed}=out/last_0.001_0.001-{seed}" for seed in (0, 1)),
        *(f"token_softmax_0.005_0.00003-{seed}=out/token_softmax_0.005_0.00003-{seed}" for seed in (0, 1)),
    ]
    head, _, first, *rest = lines()
    assert head.endswith("he minus the first row's |") and first.endswith("| 25.0 |  |")
    table = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in rest}
    # Both people have been asked, and both seeds gave one of them alone: every draw of people counts.
    assert table["last"][1:3] == ["0.001", ""] and table["last"][3] == "50.0 [0.0, 100.0] (50.0, 50.0)"
    assert table["token_softmax"][2] == "0.00003" and table["token_softmax"][4].endswith("(25.0, 25.0)")
    # In Hebrew the first person's half was right twice, where the first row has nothing.
    assert table["token_softmax"][-2:] == ["31.2", "+25.0 [0.0, 50.0]"]


def test_the_card_of_a_saved_tall_is_printed(composed, tmp_path, capsys, monkeypatch):
    publishing.save(*composed(), tmp_path / "tall")
    arguments = [str(tmp_path / "tall"), "org/tall", "--language", "he", "--example", "דנה גרה"]
    monkeypatch.setattr(sys, "argv", ["model_card.py", *arguments])
    runpy.run_path(str(EXAMPLES / "model_card.py"), run_name="__main__")
    card = ModelCard(capsys.readouterr().out)
    assert card.data.language == "he"
    assert card.data.widget[0]["text"] == "דנה גרה"
