"""The benchmarks of growth at small size, and the page that computes from what they measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tall_hf import TALLForCausalLM


ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import (  # noqa: E402
    meters,
    scaling,
    scaling_page,
    sizes,
)


LENGTH = 10


def test_growth_is_measured_and_the_page_reads_it(tmp_path):
    small = [
        "--size",
        "tiny",
        "--llms",
        "tiny",
        "--batches",
        "1",
        "2",
        "--lengths",
        "5",
        "--length",
        "8",
        "--step-sentences",
        "2",
    ]
    small += ["--sentences", "12", "--padded-batch", "4", "--output", str(tmp_path)]
    scaling.main([*small, "--parts", "batches", "memory"])
    scaling.main([*small, "--parts", "padding", "models"])
    growth = json.loads((tmp_path / "scaling.json").read_text())
    assert set(growth) == {"batches", "memory", "padding", "models"}
    as_they_come, by_length = growth["padding"]["rows"]
    assert 0 <= by_length["padding_share"] < as_they_come["padding_share"] < 1
    assert growth["models"]["rows"][0]["fits"]

    text = scaling_page.page([], [growth])
    assert "Not measured yet: `python -m benchmarks.scaling --parts processes`" in text
    assert "**assumed and not measured**" in text
    assert "| batch | length |" in text


def test_what_was_measured_stays_when_a_later_part_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "models", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scaling.main(["--parts", "memory", "models", "--llms", "tiny", "--output", str(tmp_path)])
    growth = json.loads((tmp_path / "scaling.json").read_text())
    assert set(growth) == {"memory"}
    assert str(tmp_path) not in json.dumps(growth)
    (tmp_path / "scaling.json").write_text("{")
    with pytest.raises(ValueError, match=r"scaling.json is damaged"):
        scaling.main(["--parts", "memory", "--llms", "tiny", "--output", str(tmp_path)])


def test_processes_that_wait_for_a_failed_one_are_ended():
    codes = ("import time; time.sleep(100)", "raise SystemExit(3)")
    waiting, failing = children = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    scaling.wait(children)
    assert failing.wait() == 3
    assert waiting.wait(timeout=50) != 0


@pytest.mark.slow
def test_growth_over_processes(tmp_path):
    rows = scaling.main(
        ["--parts", "processes", "--size", "tiny", "--length", "8", "--step-sentences", "2", "--output", str(tmp_path)]
    )["processes"]
    assert [row["processes"] for row in rows] == [1, 2]
    assert rows[1]["efficiency"] > 0


def test_the_page_computes_from_measured_rates_and_says_what_is_missing():
    large = scaling.size_of(scaling_page.LLM, scaling_page.LENGTH)
    assert scaling_page.page([], []).count(scaling_page.NOT_MEASURED) >= 6
    measured = {
        "machine": {"device": "some GPU"},
        "ceilings": {"bfloat16": {"flop_per_second": 8e14}},
        "rows": [{"size": "qwen", "dtype": "bfloat16", "what": "training step of 64 sentences, each", "share": 0.5}],
    }
    part = {"machine": meters.machine("cpu"), "options": {"size": "qwen", "dtype": "bfloat16", "seed": 0}}
    growth = {
        "processes": {**part, "rows": [{"processes": 1, "efficiency": 1.0}, {"processes": 2, "efficiency": 0.8}]}
    }
    hours = 1e8 * large["flop_per_training_sentence"] / (4e14 * 64 * 0.8) / 3600
    text = scaling_page.page([measured], [growth])
    assert f"| {hours:,.1f} hours |" in text
    assert "| 400 TFLOP/s |" in text
    # The best of several batches counts, whose files stand in several folders.
    better = measured | {"rows": [measured["rows"][0] | {"share": 0.6}]}
    assert all("| 480 TFLOP/s |" in scaling_page.page(runs, []) for runs in ([measured, better], [better, measured]))
    # The rate of a CPU says nothing about GPUs.
    assert f"{hours:,.1f} hours" not in scaling_page.page([measured | {"machine": {"device": "cpu"}}], [growth])


def test_the_page_is_what_the_kept_measurements_make():
    folders = sorted(scaling_page.MEASURED.iterdir())
    assert folders
    made = scaling_page.page(*(scaling_page.read(folders, name) for name in ("speed.json", "scaling.json")))
    assert (ROOT / "docs/scaling.md").read_text("utf-8") == made, "run `python -m benchmarks.scaling_page`"


def test_what_a_gpu_is_sent_and_gathers_whole_is_counted():
    with torch.device("meta"):
        model = TALLForCausalLM(sizes.configuration("tiny"))
    counted = scaling.size_of("tiny", LENGTH)
    # Embeddings and tables of positions, two alignments, and the LLM's last norm.
    outside = sum(
        (4 if weight.requires_grad else 2) * weight.numel()
        for name, weight in model.named_parameters()
        if ".layers." not in name
    )
    assert counted["outside_layers_bytes"] == outside > 0
    large = scaling.size_of(scaling_page.LLM, scaling_page.LENGTH)
    sent = 2 * large["frozen_bytes"] + 3 * 4 * large["trained"]
    assert f"| {sent / 1e9:,.0f} GB |" in scaling_page.page([], [])


def test_the_accelerate_configuration_of_64_gpus_can_be_read():
    words = scaling_page.launch_command().split()
    arguments = launch_command_parser().parse_args(["0" if word == "RANK" else word for word in words[2:]])
    assert Path(ROOT, arguments.config_file).is_file()
    arguments.config_file = str(ROOT / arguments.config_file)
    arguments, _, _ = _validate_launch_command(arguments)
    environment = prepare_multi_gpu_env(arguments)
    assert (arguments.num_machines, arguments.num_processes) == (8, 64)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert "Qwen2DecoderLayer" in environment["FSDP_TRANSFORMER_CLS_TO_WRAP"]
    assert arguments.training_script == "tall_hf.cli"
