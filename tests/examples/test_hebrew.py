"""The trial on real text, at the scale at which nothing is learned: it runs, goes on after a kill, and asks nothing it taught."""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from transformers import MarianMTModel


HEBREW = Path(__file__).parents[2] / "examples" / "hebrew"
sys.path.insert(0, str(HEBREW))

import collect  # noqa: E402
import components  # noqa: E402
import data  # noqa: E402
import run  # noqa: E402
from short_first import ShortFirst  # noqa: E402

from tall_hf.sweep.queue import record_path  # noqa: E402


SUBJECTS = [("the teacher", "המורה"), ("the doctor", "הרופא"), ("the baker", "האופה"), ("the child", "הילד")]
VERBS = [("reads", "קורא"), ("sees", "רואה"), ("likes", "אוהב"), ("buys", "קונה")]
OBJECTS = [("a book", "ספר"), ("a letter", "מכתב"), ("a house", "בית"), ("a flower", "פרח"), ("an apple", "תפוח")]
PLACES = [("in town", "בעיר"), ("at home", "בבית"), ("on the street", "ברחוב"), ("by the sea", "בים")]
TIMES = [("today", "היום"), ("tomorrow", "מחר"), ("every day", "תמיד"), ("in spring", "באביב"), ("now", "עכשיו")]
LANGUAGE = {
    "language": "he",
    "pivot": "en",
    "strip_niqqud": True,
    "min_words": 5,
    "max_words": 30,
    "held_out": 40,
    "sources": [
        {"file": "pairs.tsv", "text": "hebrew", "english": "english", "where": {"source": ["people"]}}
        | {"domain": "everyday", "held_out": True, "repeat": 2},
        {
            "file": "pairs.tsv",
            "text": "hebrew",
            "english": "english",
            "where": {"source": ["machine"]},
            "domain": "news",
        },
        {"file": "mono.txt", "text": "line", "domain": "encyclopaedia", "held_out": True},
    ],
    "english": [{"file": "english.txt", "english": "line"}],
    "translation_tests": {
        "small": {"file": "test.tsv", "header": ["english", "hebrew"], "text": "hebrew", "english": "english"}
    },
    "question_tests": {"asked": {"file": "asked.txt", "text": "line", "domain": "encyclopaedia"}},
}
GRID = """
- {row: gated, compose: {bridge: gated, gate-init: 0.2, warm-start: true}, train: {loss_curriculum: 0.5}}
- {evaluation: main, rows: [gated], rivals: [ngram, majority]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files with sentences that are in several of them, as real ones have."""
    folder = tmp_path_factory.mktemp("plain")
    pairs = [tuple(zip(*parts, strict=True)) for parts in _product(SUBJECTS, VERBS, OBJECTS, PLACES, TIMES)]
    pairs = [(" ".join(english).capitalize() + ".", " ".join(hebrew) + ".") for english, hebrew in pairs]
    random.Random(0).shuffle(pairs)
    pairs = pairs[:700]
    people, mono = pairs[:400], [hebrew for _, hebrew in pairs[350:600]]
    # Other translations of the same English, and other English for the same Hebrew.
    machine = [(english, f"והנה {hebrew}") for english, hebrew in people[::2]]
    machine += [(f"And {english}", hebrew) for english, hebrew in people[::3]]
    rows = [(*pair, "people") for pair in people] + [(*pair, "machine") for pair in machine]
    lines = ["english\thebrew\tsource", *("\t".join(row) for row in rows)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "mono.txt").write_text("\n".join(mono) + "\n", "utf-8")
    # News come in paragraphs, too.
    paragraphs = [f"So it was. {english} Then came the night." for english, _ in pairs[:400:2]]
    english = [*(english for english, _ in pairs), *paragraphs]
    (folder / "english.txt").write_text("".join(f"{line}\n" for line in english), "utf-8")
    # What is tested on is in the files above, too, in another spelling.
    tested = [(english.lower(), hebrew.rstrip(".") + "!") for english, hebrew in people[:20] + pairs[600:620]]
    (folder / "test.tsv").write_text("".join("\t".join(pair) + "\n" for pair in tested), "utf-8")
    (folder / "asked.txt").write_text(
        "".join(f'"{hebrew}"\n' for _, hebrew in pairs[330:360] + pairs[650:680]), "utf-8"
    )
    return folder


def _product(*parts):
    rows = [()]
    for part in parts:
        rows = [(*row, one) for row in rows for one in part]
    return rows


def _keys(path, *columns):
    if path.suffix == ".txt":
        return {data.key(line) for line in path.read_text("utf-8").splitlines()}
    return {data.key(row[name]) for row in data.read_jsonl(path) for name in columns if row[name]}


def test_nothing_that_is_asked_or_tested_is_learned(folder, tmp_path):
    data.write_data(LANGUAGE, folder, tmp_path, [100])
    counts = json.loads((tmp_path / "counts.json").read_text("utf-8"))
    learned = {name for name in counts if ".train." in name or name.startswith("text")}
    assert learned == {
        "pairs.train.jsonl",
        "english.train.txt",
        "text.jsonl",
        "text-100.jsonl",
    }
    assert counts["text-100.jsonl"] == 100
    evaluated = ("held_out.jsonl", "asked.jsonl", "small.pairs.jsonl", "pairs.validation.jsonl")
    kept_away = set().union(*(_keys(tmp_path / name, "text", "english") for name in evaluated))
    assert len(kept_away) > 100
    for name in learned:
        columns = ("text", "english") if name.startswith("pairs") else ("text",)
        assert not kept_away & _keys(tmp_path / name, *columns), name
    # Another translation of a sentence that is asked about is not learned either.
    asked = {row["english"] for row in data.read_jsonl(tmp_path / "held_out.jsonl")} - {""}
    assert not any(
        row["english"].removeprefix("And ") in asked for row in data.read_jsonl(tmp_path / "pairs.train.jsonl")
    )
    assert not _keys(tmp_path / "held_out.jsonl", "text") & _keys(tmp_path / "asked.jsonl", "text")
    # Nor what translates a question of a test that comes without translations.
    questions = _keys(tmp_path / "asked.jsonl", "text")
    rows = [line.split("\t") for line in (folder / "pairs.tsv").read_text("utf-8").splitlines()[1:]]
    given_away = {data.key(english) for english, hebrew, _ in rows if data.key(hebrew) in questions}
    assert given_away and not given_away & _keys(tmp_path / "english.train.txt")
    assert not given_away & _keys(tmp_path / "pairs.train.jsonl", "english")
    # Nor in the middle of a paragraph of the language model's.
    long = {name for name in kept_away | given_away if len(name.split()) >= 7}
    before, after = (
        {name for name in _keys(path) if name.startswith("so it was")}
        for path in (folder / "english.txt", tmp_path / "english.train.txt")
    )
    assert 50 < len(after) < len(before)
    assert any(name in paragraph for name in long for paragraph in before)
    assert not any(name in paragraph for name in long for paragraph in after)


def test_what_translates_a_sentence_that_is_asked_is_not_learned_either():
    source = {"domain": "news"}
    rows = [data.Row("א ב", "one two", source), data.Row("ג ד", "one two", source), data.Row("ה ו", "three", source)]
    divided, kept_away = data.divide(
        rows, [data.Row("א ב", None, {})], {"held_out": 0, "min_words": 1, "max_words": 9}
    )
    assert [row.text for row in divided["train"]] == ["ה ו"] and not divided["validation"] + divided["held_out"]
    assert kept_away == {"text:א ב", "en:one two", "text:ג ד"}


def test_a_row_that_trains_another_on_reads_that_ones_rows(tmp_path):
    (tmp_path / "grid.yaml").write_text("- {row: a, parts: {lr_hr: lr_hr_long}}\n- {row: b, from: a}\n")
    assert run.read_grid(tmp_path / "grid.yaml")[1]["parts"] == {"lr_hr": "lr_hr_long"}


def test_translators_get_few_versions_of_a_sentence_and_no_long_ones():
    few, all_of_them = {"versions": 2}, {}
    rows = [data.Row(f"א {i}", "same English", few) for i in range(5)]
    rows += [data.Row(f"ב {i}", "other English", few) for i in range(2)]
    rows += [data.Row(f"ג {i}", "same English", all_of_them) for i in range(3)]
    rows += [data.Row("מילה " * 4, "short", few), data.Row("קצר", "word " * 4, few), data.Row("עברית לבדה", None, few)]
    kept = [row.text for row in data.translator_pairs(rows, max_words=3)]
    assert kept == ["א 0", "א 1", "ב 0", "ב 1", "ג 0", "ג 1", "ג 2"]


def test_batches_hold_so_many_tokens_and_short_pairs_come_first():
    lengths = [random.Random(row).randint(3, 40) for row in range(500)]
    batches = list(sampler := ShortFirst(lengths, tokens=100, steps=80, growth=0.5, seed=1))
    assert len(batches) == len(sampler) == 80 and batches == list(sampler)
    assert batches != list(ShortFirst(lengths, tokens=100, steps=80, growth=0.5, seed=2))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 100 for batch in batches)
    limits = sampler.limits()
    assert limits == sorted(limits) and limits[0] == sorted(lengths)[499 // 3] and set(limits[40:]) == {40}
    assert all(lengths[row] <= limit for batch, limit in zip(batches, limits, strict=True) for row in batch)
    # From the start all of them: an epoch has every row once.
    everything = list(ShortFirst(lengths, tokens=100, steps=200, growth=0))
    seen = itertools.accumulate(len(batch) for batch in everything)
    first_epoch = everything[: list(seen).index(500) + 1]
    assert sorted(row for batch in first_epoch for row in batch) == list(range(500))
    # Late rows come in half-way, whatever their length, and then all are read alike.
    batches = list(ShortFirst(lengths, tokens=100, steps=400, growth=0.1, late=200, late_from=0.5))
    assert max(row for batch in batches[:200] for row in batch) == 299
    assert {row for batch in batches[200:] for row in batch} == set(range(500))
    assert list(ShortFirst([50, 2], tokens=10, steps=2, growth=0)) in ([[0], [1]], [[1], [0]])


def test_every_target_gets_the_source_of_the_next_row():
    rows = Dataset.from_dict(
        {"input_ids": [[1], [2], [3]], "attention_mask": [[1], [1], [1]], "labels": [[7], [8], [9]]}
    )
    other = components.with_other_sources(rows)
    assert (other["input_ids"][:], other["labels"][:]) == ([[2], [3], [1]], [[7], [8], [9]])


def test_the_same_sentences_are_drawn_each_time(folder, tmp_path):
    for name in ("a", "b"):
        data.write_data(LANGUAGE, folder, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("language", ["he", "sw"])
@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu"])
def test_every_command_of_the_grid_is_one_the_library_knows(language, scale, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from tall_hf.cli import app
    from tall_hf.training.run import TALLRun

    paths = {
        "language": HEBREW / f"{language}.yaml",
        "scale": HEBREW / f"{scale}.yaml",
        "data": tmp_path,
        "output": tmp_path,
    }
    settings = yaml.safe_load(paths["scale"].read_text("utf-8"))
    grid = run.read_grid(HEBREW / "grid.yaml")
    queue = run.build_queue(grid, data.read_language(paths["language"]), settings, {}, paths)
    names = [stage.name for stage in queue]
    assert len(set(names)) == len(names)
    for i, stage in enumerate(queue):
        assert set(stage.needs) <= set(names[:i]), stage.name
        # Sets of questions wait for each other where rivals are trained, and not where they only count.
        if stage.name.startswith("evaluate:"):
            assert bool(stage.links) == (stage.name.split(":")[1] in ("main", "rivals_seed1")), stage.name
        if stage.name.startswith("train:"):
            config, overrides = TALLRun.read_command_line([one for one in stage.command[4:] if one != "--resume"])
            TALLRun.read_settings(config, **{**overrides, "bf16": "false"})
    for verb in ("compose", "prepare", "pretrain-alignment", "evaluate"):
        help_text = CliRunner().invoke(app, [verb, "--help"], terminal_width=300, env={"COLUMNS": "300"}).output
        for stage in queue:
            if stage.command[2:4] == ["tall_hf.cli", verb]:
                options = [one for one in stage.command if one.startswith("--")]
                assert all(one in help_text for one in options), (stage.name, options)


def test_checkpoints_take_the_place_of_trained_parts(tmp_path):
    command = [sys.executable, HEBREW / "run.py", "--dry-run", "--output", tmp_path, "--only", "train:gated"]
    command += ["--lr-hr", "no/such-he-en", "--llm", "no/such-llm", "--hr-lr", "no/such-en-he"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "components.py" not in out
    assert "--lr-hr no/such-he-en --hr-lr no/such-en-he --llm no/such-llm" in out
    assert out.count("# would be fetched from the Hub: no/such-") == 3
    assert not list(tmp_path.iterdir())


def test_what_compares_parts_is_left_out_where_a_checkpoint_replaces_them():
    grid = run.read_grid(HEBREW / "grid.yaml")
    names = [item.get("row") or item.get("evaluation") for item in grid]
    assert run.without_replaced_parts(grid, []) == grid
    gone = {"gated_short_back", "short_back", "gated_long_back", "gated_last_word_long_back", "long_back"}
    assert [name for name in names if name not in gone] == [
        item.get("row") or item.get("evaluation") for item in run.without_replaced_parts(grid, ["hr_lr"])
    ]
    kept = run.without_replaced_parts(grid, ["lr_hr", "llm"])
    assert {"aligned_long_llm", "gated_large_llm"}.isdisjoint(item.get("row") for item in kept)
    assert {"references": "aligned_long_llm", "sets": ["held_out"]} not in kept
    # The random LLM is one of the given LLM's sizes.
    assert "random_llm" in [item.get("row") for item in kept]


def test_a_row_takes_another_part_for_a_role(tmp_path):
    scale = {"translator": {"steps": 10, "d_model": 8}, "hr_lr": {"d_model": 16}, "hr_lr_long": {"steps": 20}}
    scale |= {"llm": {"steps": 30}, "llm_large": {"hidden_size": 9}}
    assert components.part_sizes("hr_lr_long", scale) == {"steps": 20, "d_model": 16}
    assert components.part_sizes("lr_hr", scale) == {"steps": 10, "d_model": 8}
    assert components.part_sizes("random_llm", scale) == {"steps": 30}
    assert components.part_sizes("llm_large", scale) == {"steps": 30, "hidden_size": 9}
    for unknown in ("hr_lr_tiny", "decoder", "random_lr_hr"):
        with pytest.raises(ValueError, match=f"No part '{unknown}'"):
            components.part_sizes(unknown, scale)

    paths = {"language": HEBREW / "he.yaml", "scale": HEBREW / "cpu.yaml", "data": tmp_path, "output": tmp_path}
    settings = yaml.safe_load(paths["scale"].read_text("utf-8"))
    queue = run.build_queue(
        run.read_grid(HEBREW / "grid.yaml"), data.read_language(paths["language"]), settings, {}, paths
    )
    composed = {stage.name.partition(":")[2]: stage.command for stage in queue if stage.name.startswith("compose:")}
    for row, role, part in (("gated_long_back", "--hr-lr", "hr_lr_long"), ("random_llm", "--llm", "random_llm")):
        own, usual = composed[row], composed["gated"]
        at = own.index(role) + 1
        assert own[at].endswith(f"components/{part}")
        # Nothing else differs but the folder that is written.
        assert [one for i, one in enumerate(own) if i != at and row not in one] == [
            one for i, one in enumerate(usual) if i != at and "composed/gated" not in one
        ]


def test_a_row_trains_the_model_of_another_on(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "- {row: first, compose: {bridge: gated}, train: {seed: 3}, truncation: none, longer: 0.25}\n"
        "- {row: then, like: first, from: first, truncation: last_word, longer: 0.75}\n"
        "- {evaluation: both, rows: [then], rivals: [ngram], sets: [held_out]}\n"
    )
    paths = {"language": HEBREW / "he.yaml", "scale": HEBREW / "cpu.yaml", "data": tmp_path, "output": tmp_path}
    settings = yaml.safe_load(paths["scale"].read_text("utf-8"))
    queue = run.build_queue(
        run.read_grid(tmp_path / "grid.yaml"), data.read_language(paths["language"]), settings, {}, paths
    )
    stages = {stage.name: stage for stage in queue}
    then = stages["train:then"].command
    assert then[then.index("--model") + 1] == str(tmp_path / "trained" / "first" / "model")
    assert "train:first" in stages["train:then"].needs and "compose:then" not in stages
    # A seed draws the first weights too.
    compose = stages["compose:first"].command
    assert compose[compose.index("--seed") + 1] == "3"
    assert "seed=3" in then and f"max_steps={settings['train']['max_steps'] * 3 // 4}" in then
    (tmp_path / "wrong.yaml").write_text("- {row: first}\n- {row: then, from: first, compose: {bridge: none}}\n")
    with pytest.raises(ValueError, match="'then' trains the model of 'first' on"):
        run.read_grid(tmp_path / "wrong.yaml")
    # By `like` too, whichever of the two is taken over.
    rows = "- {row: first}\n- {row: other, compose: {bridge: none}}\n- {row: next, like: other, from: first}\n"
    (tmp_path / "wrong.yaml").write_text(rows)
    with pytest.raises(ValueError, match="'next' trains the model of 'first' on"):
        run.read_grid(tmp_path / "wrong.yaml")
    (tmp_path / "wrong.yaml").write_text("- {row: then, from: last}\n")
    with pytest.raises(ValueError, match="names the row 'last'"):
        run.read_grid(tmp_path / "wrong.yaml")


def test_a_rows_alignments_are_pretrained_before_it_is_trained(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "- {row: plain, compose: {bridge: gated}, truncation: random_word}\n"
        "- {row: spoken, like: plain, align: embeddings}\n"
        "- {row: further, like: spoken, from: spoken}\n"
        "- {links: [llm, llm_long, llm]}\n"
    )
    paths = {"language": HEBREW / "he.yaml", "scale": HEBREW / "cpu.yaml", "data": tmp_path, "output": tmp_path}
    settings = yaml.safe_load(paths["scale"].read_text("utf-8"))
    grid, language = run.read_grid(tmp_path / "grid.yaml"), data.read_language(paths["language"])
    stages = {stage.name: stage for stage in run.build_queue(grid, language, settings, {}, paths)}
    assert [name for name in stages if name.startswith("align:")] == ["align:spoken"]
    align, train = stages["align:spoken"], stages["train:spoken"]
    assert align.command[2:5] == ["tall_hf.cli", "pretrain-alignment", str(tmp_path / "composed" / "spoken")]
    assert align.command[align.command.index("--objective") + 1] == "embeddings"
    assert "align:spoken" in train.needs and "prepare:text-random_word" in align.needs
    assert train.command[train.command.index("--model") + 1] == str(tmp_path / "aligned" / "spoken")
    plain, further = stages["train:plain"].command, stages["train:further"].command
    assert plain[plain.index("--model") + 1] == str(tmp_path / "composed" / "plain")
    assert further[further.index("--model") + 1] == str(tmp_path / "trained" / "spoken" / "model")

    links = stages["links"]
    parts = [value for option, value in zip(links.command, links.command[1:], strict=False) if option == "--llm"]
    assert parts == [str(tmp_path / "components" / part) for part in ("llm", "llm_long")]
    assert links.needs == ["data", "component:hr_lr", "component:llm", "component:llm_long"]
    # Without translations by people of what is held out, nothing is asked behind them.
    language = data.read_language(paths["language"])
    language["sources"] = [source for source in language["sources"] if "english" not in source]
    names = {stage.name for stage in run.build_queue(grid, language, settings, {}, paths)}
    assert "links" in stages and names == set(stages) - {"links", "component:llm_long"}
    (tmp_path / "wrong.yaml").write_text("- {row: first}\n- {row: then, from: first, align: embeddings}\n")
    with pytest.raises(ValueError, match="whose alignments are trained; leave its own `align` out"):
        run.read_grid(tmp_path / "wrong.yaml")


def test_every_sentence_gets_another_ones_place():
    for count in range(2, 40):
        others = data.other_sentences([str(i) for i in range(count)])
        assert sorted(map(int, others)) == list(range(count))
        assert all(int(other) != i for i, other in enumerate(others))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("- {row: a, align: embedings}", "has `align: embedings`, which is none of autoencoder, embeddings"),
        ("- {links: [llm]}\n- {links: [llm_long]}", "two entries of links"),
        ("- {row: a, train: {seed: 1}}\n- {row: a, train: {seed: 2}}", "two entries `row: a`"),
        ("- {row: a}\n- {evaluation: e, rows: []}", "the evaluation 'e' names no rows"),
        ("", r"grid.yaml should hold a list with something in it, got None"),
        ("- {row: a", r"grid.yaml is no YAML"),
    ],
)
def test_a_grid_is_refused_before_anything_runs(tmp_path, entry, message):
    (tmp_path / "grid.yaml").write_text(entry)
    with pytest.raises(ValueError, match=message):
        run.read_grid(tmp_path / "grid.yaml")


def _entry(accuracy, learned=None, seconds=None, bits=1.5):
    metrics = {"accuracy": accuracy, "accuracy_interval": [accuracy - 0.1, accuracy + 0.1], "n": 50}
    return {
        "metrics": {**metrics, "top5_accuracy": accuracy, "bits_per_character": bits},
        "comparison": {"adjusted_p_value": 0.25},
        "splits": {"group": {"news": metrics, "everyday": metrics}, "overlap": {"none": metrics}},
        "learned": learned or {},
        "fitting_cost": None if seconds is None else {"seconds": seconds, "peak_memory": 2**31},
        "answering_cost": {"seconds": 3.0, "peak_memory": 2**30},
    }


def test_tables_and_the_learning_curve(tmp_path):
    for name, sentences, accuracy in (("main", 300, 0.5), ("curve_10", 10, 0.3)):
        dataset = tmp_path / "prepared" / name
        dataset.mkdir(parents=True)
        (dataset / "prepare.json").write_text(json.dumps({"counts": {"train": sentences}}))
        folder = tmp_path / "evaluation" / name / "held_out"
        folder.mkdir(parents=True)
        row = "gated" if name == "main" else "gated_10k"
        approaches = {row: _entry(accuracy, bits="inf"), "ngram": _entry(0.2, {"trials": [{}, {}]}, 7)}
        if name == "main":
            approaches["lora"] = {"error": "no memory"}
        report = {
            "seed": 0,
            "dataset": str(dataset),
            "protocols": {"clean": {"questions": 50, "approaches": approaches}},
        }
        (folder / "results.json").write_text(json.dumps(report))
    (tmp_path / "stages").mkdir()
    stages = {
        "train:gated": ["x"],
        "align:gated": ["y"],
        "evaluate:main:held_out": [*run.TALL, "evaluate", "gated=a b"],
    }
    for name, command in stages.items():
        record = {
            "stage": name,
            "command": command,
            "seconds": 1234.5,
            "peak_memory": 3 * 2**30,
            "date": "2026-01-02",
            "machine": "x86",
            "cpus": 2,
        }
        (tmp_path / "stages" / f"{name.replace(':', '.')}.json").write_text(json.dumps(record))
    text = "\n".join(collect.evaluation_tables(tmp_path))
    assert "## main, held_out, protocol clean: 50 questions" in text
    assert "    tall evaluate 'gated=a b'" in text and "2026-01-02, x86, 2 CPUs; seed 0." in text
    assert "| gated | 50.00 [40.0, 60.0] | 50.00 | ∞ | 0.250 | by hand | 2,469 | 3 | 3.00 GiB |" in text
    assert "| ngram | 20.00 [10.0, 30.0] | 20.00 | 1.50 | 0.250 | 2 | 7 | 3 | 2.00 GiB |" in text
    assert "| lora | failed: no memory |" in text
    # One group alone would say what the table above it says.
    assert "| approach | news (n=50) | everyday (n=50) |" in text and "in a row" not in text

    collect.plot_learning_curve(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    shutil.rmtree(tmp_path / "evaluation" / "curve_10")
    with pytest.raises(ValueError, match="no two evaluations"):
        collect.plot_learning_curve(tmp_path, tmp_path / "curve.png")


@pytest.mark.parametrize("jobs", [1, 2])
def test_stages_run_after_what_they_need_and_what_failed_is_told(tmp_path, jobs):
    order = tmp_path / "order"

    def stage(name, needs=(), code="pass"):
        code = f"open({str(order)!r}, 'a').write({name!r} + ' '); {code}"
        return run.Stage(name, [sys.executable, "-c", code], list(needs))

    fails = "raise SystemExit(3)"
    queue = [stage("a"), stage("b", code=fails), stage("c", ["a"]), stage("d", ["b"]), stage("e", ["c"])]
    assert sorted(run.run_queue(tmp_path, queue, jobs)) == ["b", "d"]
    done = order.read_text().split()
    assert sorted(done) == ["a", "b", "c", "e"]
    assert done.index("a") < done.index("c") < done.index("e")
    record = json.loads(record_path(tmp_path, queue[1]).read_text())
    assert record["exit_code"] == 3 and record["peak_memory"] > 0
    # What is done is not done again; what failed is.
    assert sorted(run.run_queue(tmp_path, queue, jobs)) == ["b", "d"]
    assert order.read_text().split()[len(done) :] == ["b"]


@pytest.mark.slow
def test_the_whole_way_killed_and_taken_up_again(folder, tmp_path):
    (tmp_path / "he.yaml").write_text(yaml.safe_dump(LANGUAGE, allow_unicode=True), "utf-8")
    (tmp_path / "grid.yaml").write_text(GRID, "utf-8")
    output = tmp_path / "out"
    command = [sys.executable, HEBREW / "run.py", "--language-config", tmp_path / "he.yaml", "--scale", "smoke"]
    command += ["--grid", tmp_path / "grid.yaml", "--data", folder, "--output", output]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    checkpoints = output / "components" / "lr_hr.unfinished" / "checkpoints"
    while first.poll() is None and not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    first.wait()
    assert not (output / "components" / "lr_hr").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    for part in ("lr_hr", "hr_lr"):
        report = json.loads((output / "components" / part / "report.json").read_text("utf-8"))
        assert report["tests"]["small"]["sentences"] == 20
        assert "tok:13a" in report["tests"]["small"]["BLEU_signature"]
        assert report["validation_loss_of_other_sources"] != report["validation_loss"]
        # The start token, which CTranslate2 takes to be zeros.
        translator = MarianMTModel.from_pretrained(output / "components" / part)
        assert not translator.get_input_embeddings().weight[translator.config.pad_token_id].any()
    assert json.loads((output / "components" / "llm" / "report.json").read_text("utf-8"))["perplexity"] > 1
    for test in ("held_out", "asked"):
        report = json.loads((output / "evaluation" / "main" / test / "results.json").read_text("utf-8"))
        assert set(report["protocols"]["clean"]["approaches"]) == {"gated", "ngram", "majority"}
    listed = subprocess.run([*command, "--list"], check=True, capture_output=True, text=True).stdout
    assert listed.count("| done |") == 9 and "missing" not in listed
    tables = subprocess.run(
        [sys.executable, HEBREW / "collect.py", output], check=True, capture_output=True, text=True
    )
    assert "| gated |" in tables.stdout and "chrF" in tables.stdout and "everyday (n=" in tables.stdout
