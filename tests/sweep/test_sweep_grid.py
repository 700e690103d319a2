"""Grids as users write them: what rows take over, what they become, and every way to get one wrong."""

import datetime
import json
import re
from pathlib import Path

import parts
import pytest
from sweep_grids import BASE, stages_of
from transformers import AutoConfig

from tall_hf import TALLConfig
from tall_hf.components import ROLES
from tall_hf.microworld import component_path
from tall_hf.sweep.grid import read_grid
from tall_hf.sweep.stages import build_stages, check_parts
from tall_hf.training.run import TALLRun


EXAMPLES = Path(__file__).parents[2] / "examples" / "sweeps"


def test_rows_take_over_from_base_and_from_each_other(grid):
    read = grid(
        {
            "marian": {"compose": {"bridge": "marian"}, "train": {"loss_positions": "all"}},
            "later": {"like": "wider", "train": {"max_steps": 4}, "seeds": [7]},
            "wider": {"like": "marian", "compose": {"alignment-hidden-size": 512}},
        },
        seeds=[0, 1],
        control="wider",
    )
    later = read.rows["later"]
    assert later.options["compose"] == {
        "lr_hr": "a/lr-hr",
        "llm": "a/llm",
        "hr_lr": "a/hr-lr",
        "bridge": "marian",
        "alignment_hidden_size": 512,
    }
    assert later.options["train"] == {"max_steps": 4, "loss_positions": "all"}
    assert later.options["pretrain_alignment"] is None
    assert (later.seeds, read.rows["wider"].seeds) == ((7,), (0, 1))
    assert read.control == "wider" and grid({"a": None}).control == "a"


def test_axes_make_a_row_of_each_combination(grid):
    read = grid(
        {
            "a": {"axes": {"compose.bridge": ["marian", "none"], "train.max_steps": [2, 4]}},
            "b": {"axes": {"train.unfreeze": [["decoder.layers.-1", "llm.layers.-1"]], "compose.warm_start": [True]}},
            "c": {"like": "a_none_4"},
        }
    )
    names = ["a_marian_2", "a_marian_4", "a_none_2", "a_none_4", "b_decoder.layers.-1-llm.layers.-1_true", "c"]
    assert list(read.rows) == names
    assert read.rows["c"].options == read.rows["a_none_4"].options
    assert read.rows["a_none_4"].options["compose"]["bridge"] == "none"


def test_options_become_the_arguments_that_their_commands_read(grid):
    read = grid({"a": {"evaluate": {"protocol": ["paper", "clean"]}, "train": {"learning_rate": "1e-3"}}})
    compose = {"warm_start": True, "leave_out_llm": False, "bridge_heads": None, "gate_init": 0.2}
    assert read.arguments("compose", compose) == ["--gate-init", "0.2", "--warm-start", "--no-leave-out-llm"]
    evaluate = read.rows["a"].options["evaluate"]
    assert read.arguments("evaluate", evaluate) == [
        "--text",
        "held_out.jsonl",
        "--protocol",
        "paper",
        "--protocol",
        "clean",
    ]
    assert read.arguments("prepare", {"min_words": 3, "text": "t"}) == ["t", "--min-words", "3"]
    train = {"unfreeze": ["a"], "learning_rate": "1e-3", "bf16": False, "run_name": "null", "last_n": None}
    assert read.arguments("train", train)[1::2] == [
        "bf16=false",
        "last_n=null",
        "learning_rate=1e-3",
        'run_name="null"',
        'unfreeze=["a"]',
    ]


def test_texts_that_yaml_reads_otherwise_reach_the_training_as_they_are(grid):
    texts = {"lora_target_modules": "[qv]_proj", "run_name": "2026-01-01", "lora_r": 2}
    read = grid({"a": {"train": texts}})
    overrides = TALLRun.read_command_line(read.arguments("train", read.rows["a"].options["train"]))[1]
    settings, args = TALLRun.read_settings(None, model="m", dataset="d", output_dir="o", **overrides)
    assert (settings.lora_target_modules, args.run_name) == ("[qv]_proj", "2026-01-01")


def test_environment_variables_are_filled_in(grid, monkeypatch):
    monkeypatch.setenv("SCRATCH_OF_TEST", "/scratch")
    read = grid({"a": {"prepare": {"text": "${SCRATCH_OF_TEST}/text.txt"}}})
    assert read.rows["a"].options["prepare"]["text"] == "/scratch/text.txt"


def test_what_rows_share_is_done_once_and_named_after_what_decides_it(grid):
    rows = {"a": {}, "b": {"train": {"loss_positions": "all"}}, "c": {"compose": {"bridge": "none"}}, "d": {}}
    queue, trainings = build_stages(grid(rows, seeds=[0, 1]), Path("out"))
    # Parts for preparing, two TALLs for each seed; a and d are the same.
    assert stages_of(queue) == {"compose": 5, "prepare": 1, "train": 6, "evaluate": 6}
    by_name = {(one.row, one.seed): one for one in trainings}
    assert len(by_name) == 8 and [one.row for one in trainings] == ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert by_name["a", 0].train is by_name["d", 0].train and by_name["a", 0].train is not by_name["a", 1].train
    assert by_name["a", 0].train.about == "a, seed 0 and others"
    for place, stage in enumerate(queue):
        assert set(stage.needs) <= {one.name for one in queue[:place]}
    # The first seed of all rows comes first.
    seeds = [stage.command[stage.command.index("--set") + 1 :] for stage in queue if stage.name.startswith("train:")]
    assert ["seed=0" in one for one in seeds] == [True] * 3 + [False] * 3
    again, _ = build_stages(grid({name: rows[name] for name in "dcba"}, seeds=[1, 0]), Path("out"))
    assert {stage.name: stage.command for stage in again} == {stage.name: stage.command for stage in queue}


def test_rows_with_the_bridge_concat_are_prepared_by_themselves(grid):
    rows = {"a": {}, "b": {"compose": {"bridge": "none"}}, "c": {"compose": {"bridge": "concat"}}}
    queue, trainings = build_stages(grid(rows), Path("out"))
    stages = {stage.name: stage for stage in queue}
    prepared = {one.row: next(need for need in one.train.needs if need.startswith("prepare:")) for one in trainings}
    assert prepared["a"] == prepared["b"] != prepared["c"]
    [parts] = stages[prepared["c"]].needs
    assert stages[parts].command[stages[parts].command.index("--bridge") + 1] == "concat"


def lengths(command):
    """What decides where sentences are cut, of a TALL that this `tall compose` command writes."""
    options = dict(zip(command, command[1:], strict=False))
    parts = {f"{role}_config": AutoConfig.from_pretrained(options[f"--{role.replace('_', '-')}"]) for role in ROLES}
    config = TALLConfig(**parts, source_bridge=options["--bridge"], look_ahead=int(options.get("--look-ahead", 0)))
    return config.max_source_length, config.max_translation_length, config.max_target_length


@pytest.mark.parametrize("is_short", [False, True])
def test_rows_are_prepared_by_a_tall_that_cuts_as_theirs_does(grid, part, is_short, tmp_path):
    lr_hr = tmp_path / "lr_hr"
    lr_hr.mkdir()
    config = json.loads((part("marian_he_en") / "config.json").read_text("utf-8"))
    config["max_position_embeddings"] = 48 if is_short else 72
    (lr_hr / "config.json").write_text(json.dumps(config), "utf-8")
    base = {"lr_hr": str(lr_hr), "llm": str(part("opt")), "hr_lr": str(part("marian_en_he", 1))}
    rows = {bridge: {"compose": {"bridge": bridge}} for bridge in parts.BRIDGES}
    rows |= {
        f"{bridge}_{count}": {"compose": {"bridge": bridge, "look_ahead": count}}
        for bridge in parts.BRIDGES
        for count in (0, 3)
    }
    queue, trainings = build_stages(grid(rows, base={**BASE, "compose": base}), Path("out"))
    stages = {stage.name: stage for stage in queue}
    preparing = {}
    for one in trainings:
        composed, prepared = (stages[name] for name in one.train.needs)
        [preparing[one.row]] = (stages[name].command for name in prepared.needs)
        assert lengths(preparing[one.row]) == lengths(composed.command), one.row
    # One for all, where all are cut alike.
    same = ["gated", "marian", "gated_0", "marian_0", *([] if is_short else ["none", "none_0"])]
    assert all(preparing[row] == preparing[same[0]] for row in same)
    assert preparing["gated_3"] == preparing["marian_3"] != preparing["gated"]
    if not is_short:
        assert "none" in preparing["gated"]  # as ever: folders are named after it


def test_without_seeds_each_command_keeps_its_own(grid):
    queue, [trained] = build_stages(grid({"a": {}}), Path("out"))
    assert trained.seed is None and not any("seed" in part for stage in queue for part in stage.command)


def test_a_row_starts_from_another_ones_model_or_from_pretrained_alignments(grid):
    rows = {
        "task": {"from": "warmup", "train": {"max_steps": 4}},
        "warmup": {
            "compose": {"bridge": "marian"},
            "prepare": {"truncation": "none"},
            "train": {"loss_positions": "all"},
            "evaluate": False,
            "pretrain_alignment": {"max_epochs": 3},
        },
    }
    read = grid(rows, seeds=[5])
    queue, trainings = build_stages(read, Path("out"))
    task, warmup = trainings
    assert task.source is warmup and warmup.evaluate is None and warmup.align is not None
    assert task.train.command[task.train.command.index("--model") + 1] == str(warmup.folder / "model")
    assert warmup.train.command[warmup.train.command.index("--model") + 1] == warmup.align.command[-1]
    assert "--max-epochs 3" in " ".join(warmup.align.command) and "--seed 5" in " ".join(warmup.align.command)
    # Both texts are translated by the same parts.
    assert stages_of(queue) == {"compose": 2, "prepare": 2, "pretrain-alignment": 1, "train": 2, "evaluate": 1}
    assert task.train.needs[0] == warmup.train.name


def test_overlap_is_looked_for_in_the_text_prepared_with_whole_sentences(grid):
    row = {"prepare": {"truncation": "random_word"}, "train": {"loss_positions": "continuation"}}
    queue, [trained] = build_stages(grid({"a": row | {"evaluate": {"exclude_overlap": 7}}}), Path("out"))
    assert stages_of(queue)["prepare"] == 2
    dataset = trained.evaluate.command[trained.evaluate.command.index("--dataset") + 1]
    assert any(stage.command[-1] == dataset and "last_word" in stage.command for stage in queue)


@pytest.mark.parametrize(
    ("rows", "entries", "message"),
    [
        ({}, {}, "has no rows; write at least one under `rows:`"),
        ({"a": {}}, {"bas": {}}, "grid.yaml has an unknown entry 'bas'. Did you mean 'base'?"),
        ({"a": {}}, {"base": {"trian": {}}}, "`base` has an unknown entry 'trian'. Did you mean 'train'?"),
        ({"a": {"lik": "b"}}, {}, "the row 'a' has an unknown entry 'lik'. Did you mean 'like'?"),
        ({"a": 3}, {}, "the row 'a' must hold `name: value` lines, got 3"),
        ({"a": {"train": [1]}}, {}, "the row 'a': `train` must hold `name: value` lines, got [1]"),
        ({"a b": {}}, {}, "a row's name is made of letters, digits, '_', '.', '+' and '-', got 'a b'"),
        ({"a": {"compose": {"brigde": "marian"}}}, {}, "unknown option 'brigde'. Did you mean 'bridge'?"),
        ({"a": {"train": {"bridge": "marian"}}}, {}, "unknown option 'bridge'. It is one of `compose`"),
        ({"a": {"train": {"learning_rat": 1}}}, {}, "unknown option 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"a": {"train": {"last_n": 2}}}, {}, "`train` of the row 'a': `last_n` goes with `loss_positions"),
        ({"a": {"compose": {"bridge": "marion"}}}, {}, "`compose` of the row 'a': Invalid value for '--bridge'"),
        ({"a": {"prepare": {"min_words": "few"}}}, {}, "`prepare` of the row 'a': Invalid value for '--min-words'"),
        ({"a": {"compose": {"look_ahead": -1}}}, {}, "`compose` of the row 'a': Invalid value for '--look-ahead'"),
        ({"a": {"evaluate": {"protocol": "dirty"}}}, {}, "`evaluate` of the row 'a': Invalid value for '--protocol'"),
        (
            {"a": {"train": {"lora_alpha": 8}}},
            {},
            "`train` of the row 'a': `lora_alpha` is a setting of LoRA, which is off",
        ),
        ({"a": {"train": {"lora_r": 0}}}, {}, "`train` of the row 'a': LoRA needs r of at least 1"),
        ({"a": {"train": {"lora_r": 4, "lora_dropout": 1.5}}}, {}, "LoRA needs r of at least 1"),
        (
            {"a": {"train": {"unfreeze": [5]}}},
            {},
            "`train` of the row 'a': `unfreeze` must be a list of modules' names",
        ),
        ({"a": {"train": {"max_steps": datetime.date(2026, 1, 1)}}}, {}, "`max_steps` must be int, got '2026-01-01'"),
        ({"a": {"evaluate": {"batch_size": -1}}}, {}, "`evaluate` of the row 'a': Invalid value for '--batch-size'"),
        (
            {"a": {"compose": {"alignment_type": "linear"}, "pretrain_alignment": True}},
            {},
            "the row 'a' pretrains alignments of the type 'linear' by the objective 'autoencoder', and only those",
        ),
        (
            {"a": {"seeds": [2**32]}},
            {},
            "`seeds` of the row 'a' must be a list of different whole numbers below 2**32",
        ),
        ({"a": {"train": {"report_to": ["nobody"]}}}, {}, "`train` of the row 'a': `report_to` names 'nobody'"),
        ({"a": {"prepare": {"min_words": 9, "max_words": 5}}}, {}, "`prepare` of the row 'a': `min_words` must be at"),
        (
            {"a": {"prepare": {"truncation": "random_word"}}},
            {},
            "the text of the row 'a' was prepared with truncation 'random_word'",
        ),
        (
            {"a": {"from": "b"}, "b": {"prepare": {"truncation": "none"}, "train": {"loss_positions": "last_word"}}},
            {},
            "the text of the row 'b' was prepared with truncation 'none'",
        ),
        ({"a": {"compose": {"warm_start": 1}}}, {}, "`warm_start` must be true or false, got 1"),
        ({"a": {"compose": {"gate_init": True}}}, {}, "`gate_init` must be a value, got True"),
        ({"a": {"compose": {"gate_init": [0, 1]}}}, {}, "`gate_init` takes one value, got [0, 1]; for a row each"),
        ({"a": {"compose": {"llm": None}}}, {}, "`compose` of the row 'a' lacks `llm`; set it there"),
        ({"a": {"compose": {"output": "x"}}}, {}, "sets `output`, which the sweep sets itself"),
        ({"a": {"train": {"seed": 1}}}, {}, "sets `seed`, which the sweep sets itself"),
        ({"a": {"compose": {"token": "hf_x"}}}, {}, "sets `token`, which would be written into records; set HF_TOKEN"),
        ({"a": {"evaluate": {"llm": "x"}}}, {}, "a sweep asks the TALLs alone; compare others by `tall evaluate`"),
        ({"a": {"like": "bb"}, "b": {}}, {}, "`like` of the row 'a' names 'bb', which is no row. Did you mean 'b'?"),
        ({"a": {"like": "b"}, "b": {"like": "a"}}, {}, "in a circle by `like`: a → b → a"),
        ({"a": {"from": "c"}}, {}, "`from` of the row 'a' names 'c', which is no row"),
        ({"a": {"from": "b"}, "b": {"from": "a"}}, {}, "in a circle by `from`: a → b → a"),
        ({"a": {"from": "b", "compose": {}}, "b": {}}, {}, "so it has no `compose` of its own: leave it out"),
        (
            {"a": {"from": "b"}, "b": {}, "c": {"like": "a", "compose": {"bridge": "none"}}},
            {},
            "the row 'c' starts from 'b' by `like`, so it has no `compose`: leave it out",
        ),
        (
            {"a": {"from": "b", "pretrain_alignment": True}, "b": {}},
            {},
            "whose alignments are trained; set `pretrain_alignment: false` in it",
        ),
        (
            {"a": {"from": "b", "seeds": [0, 1]}, "b": {"seeds": [0]}},
            {},
            "starts from 'b' with the same seed, but that one is not trained with seed 1",
        ),
        ({"a": {"seeds": 3}}, {}, "`seeds` of the row 'a' must be a list of different whole numbers"),
        (
            {"a": {}},
            {"seeds": [1, 1]},
            "`seeds` must be a list of different whole numbers below 2**32, such as [0, 1, 2]",
        ),
        ({"a": {}}, {"control": "z"}, "`control` names 'z', which is no row"),
        ({"a": {}}, {"control": ["a"]}, "`control` names ['a'], which is no row"),
        ({"a": {"axes": {"bridge": ["none"]}}}, {}, "an axis is written SECTION.OPTION, such as compose.bridge"),
        ({"a": {"axes": {"compose.bridge": "none"}}}, {}, "the axis 'compose.bridge' must have a list of values"),
        (
            {"a": {"axes": {"compose.bridge": ["none"]}}, "a_none": {}},
            {},
            "two rows are called 'a_none'; give each a name of its own",
        ),
        (
            {"a": {"axes": {"compose.bridge": ["none", "concat"]}}, "b": {"like": "a"}},
            {},
            "names 'a', which has axes and so is several rows: name one of a_none, a_concat",
        ),
        (
            {"a": {"prepare": {"text": "$NO_SUCH_VARIABLE_HERE/text"}}},
            {},
            "names the environment variable 'NO_SUCH_VARIABLE_HERE', which is not set; `export NO_SUCH_VARIABLE_HERE=",
        ),
    ],
)
def test_what_is_wrong_is_named(grid, rows, entries, message):
    with pytest.raises((ValueError, ImportError)) as error:
        grid(rows, **entries)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"alignment_type": "linear", "alignment_hidden_size": 64}, "`alignment_hidden_size` is of the alignments"),
        ({"bridge": "none", "source_fusion": "global_softmax"}, 'fuses states that the bridge "none" does not read'),
        ({"bridge_heads": 3}, "not divisible by 3 attention heads"),
        ({"look_ahead": 9999}, "`look_ahead` of 9999 tokens leaves the translation none"),
        ({"alignment_dropout": "1.0"}, "`alignment_dropout` must be a number in"),
        ({"lr_hr": "nllb", "warm_start": True}, "`warm_start` needs two Marian translators"),
    ],
)
def test_switches_that_do_not_go_together_are_named_before_anything_runs(grid, part, switches, message):
    parts = {role: str(component_path(role)) for role in ROLES}
    check_parts(grid({"a": {"compose": parts | {"look_ahead": 1, "warm_start": True}}, "b": {"from": "a"}}))
    if "lr_hr" in switches:
        switches = switches | {"lr_hr": str(part(switches["lr_hr"]))}
    with pytest.raises(ValueError) as error:
        check_parts(grid({"a": {"compose": parts}, "c": {"compose": parts | switches}}))
    assert str(error.value).startswith("`compose` of the row 'c': ") and message in str(error.value)


def test_parts_that_are_not_at_hand_are_left_to_composing(grid):
    check_parts(grid({"a": {"compose": {"bridge_heads": 3}}}))


@pytest.mark.parametrize("name", ["microworld", "smoke"])
def test_the_grids_of_the_examples_can_be_read(commands, monkeypatch, name):
    monkeypatch.setenv("PARTS", str(component_path("llm").parent))
    read = read_grid(EXAMPLES / f"{name}.yaml", commands)
    queue, trainings = build_stages(read, Path("out"))
    assert len({stage.name for stage in queue}) == len(queue)
    assert read.control == "gated" and {one.row for one in trainings} == set(read.rows)
    # Which options there are is the commands' matter, and read_grid has asked them; these rows are the point of the grid.
    if name == "microworld":
        wanted = {"bridge_marian", "positions_last_token", "last_n_5", "curriculum_0.5", "random_word", "after_warmup"}
        wanted |= {"width_2048", "alignment_identity", "pretrained_alignment", "fusion_token_softmax", "lora_16"}
        assert wanted | {"unfreeze_decoder", "unfreeze_llm", "gate_0.5"} <= set(read.rows)


def test_the_grid_of_the_guide_can_be_read(commands, tmp_path):
    guide = (EXAMPLES.parents[1] / "docs" / "guide" / "sweep.md").read_text("utf-8")
    [written] = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "rows:" in block]
    path = tmp_path / "grid.yaml"
    path.write_text(written, "utf-8")
    rows = read_grid(path, commands).rows
    assert rows["marian_lora"].options["train"]["lora_r"] == 16 and "width_2048" in rows


def test_a_row_that_is_written_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("rows:\n  a: {}\n  a: {}\n", "utf-8")
    with pytest.raises(ValueError, match="'a' is set twice"):
        read_grid(path, {})
