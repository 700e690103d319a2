"""`tall train`: settings from file and command line, a training of a prepared text, and what a user does wrong."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import parts
import pytest
import torch
import yaml
from trainings import make_rows
from typer.testing import CliRunner

from tall_hf import TALLForCausalLM, TALLProcessor, TALLTrainer, compose, data, publishing
from tall_hf.cli import app
from tall_hf.files import locked
from tall_hf.training.adapter_run import samples_read
from tall_hf.training.light import trainable_names
from tall_hf.training.run import TALLRun


EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDED = {"model": "m", "dataset": "d", "output_dir": "o"}
SHORT = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.01,
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture
def prepared(fresh, tmp_path):
    """A saved TALL and a text prepared for it; the settings of a short training of theirs as a YAML file."""
    model, processor = fresh("gated")
    model.save_pretrained(tmp_path / "tall")
    processor.save_pretrained(tmp_path / "tall")
    texts = [processor.decode_target(row["labels"]) for row in make_rows(processor, 40)]
    settings = data.CorpusSettings(min_words=2, max_words=10, validation_share=0.2)
    data.prepare(model, processor, texts, tmp_path / "data", settings=settings, num_beams=1)
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "model": str(tmp_path / "tall"),
                "dataset": str(tmp_path / "data"),
                "output_dir": str(tmp_path / "out"),
                **SHORT,
            }
        )
    )
    return config


def tall(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_from_prepared_text_to_a_saved_model(prepared, tmp_path):
    result = tall("train", prepared, "--frozen_dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert {"model", "checkpoint-4", "training.png", "metrics.json", "trainer_state.json"} <= {
        p.name for p in out.iterdir()
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["eval_last_word_accuracy"] <= 1
    # Four steps of four of some thirty rows, and no accelerator.
    assert (metrics["steps"], metrics["samples"], metrics["peak_accelerator_memory"]) == (4, 16, None)
    model = TALLForCausalLM.from_pretrained(out / "model")
    assert metrics["trainable_parameters"] == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    untrained = TALLForCausalLM.from_pretrained(tmp_path / "tall").state_dict()
    assert not torch.equal(model.state_dict()["encoder.gate"], untrained["encoder.gate"])
    adapters = trainable_names(model)
    assert all(
        torch.equal(value, untrained[name]) for name, value in model.state_dict().items() if name not in adapters
    )
    assert model.config.use_cache
    assert len(model.next_words(parts.SENTENCES, TALLProcessor.from_pretrained(out / "model"), top_k=1)) == 5

    refused = tall("train", prepared)
    assert refused.exit_code == 1
    assert "checkpoint-4 is there already" in refused.output
    assert "--resume" in refused.output
    before = model.state_dict()
    again = tall("train", prepared, "--frozen_dtype", "bfloat16", "--resume")
    assert again.exit_code == 0, again.output
    after = TALLForCausalLM.from_pretrained(out / "model").state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    changed = tall("train", prepared, "--resume", "--seed", "7")
    assert changed.exit_code == 1
    assert "seed: 42 then, 7 now" in changed.output


def test_a_training_whose_fusion_learned_like_the_others_goes_on_with_null(prepared, tmp_path):
    assert tall("train", prepared, "--fusion_learning_rate", "null").exit_code == 0
    changed = tall("train", prepared, "--resume")
    assert changed.exit_code == 1 and "fusion_learning_rate: None then, 3e-05 now" in changed.output
    again = tall("train", prepared, "--resume", "--fusion_learning_rate", "null")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--push_to_hub", "--light_checkpoints", "false"], "to be published from there"),
        (["--lora_learning_rate", "1e-4"], "`lora_learning_rate` is a setting of LoRA, which is off: set `lora_r`"),
        (["--lora_alpha", "16"], "`lora_alpha` is a setting of LoRA, which is off: set `lora_r`"),
        (["--report_to", "mlflow"], "`report_to` names 'mlflow', which is not installed here"),
        (["--model", "nowhere/at-all"], "There is no folder nowhere/at-all"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_read(prepared, monkeypatch, flags, message):
    monkeypatch.setattr("tall_hf.training.adapter_run.get_available_reporting_integrations", lambda: ["tensorboard"])
    result = tall("train", prepared, *flags)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")


def test_samples_are_counted_as_epochs_end():
    # Ten rows by fours: steps of 4, 4 and 2, or of 4 and 4 where what is left is dropped.
    assert [samples_read(steps, 10, 4) for steps in range(8)] == [0, 4, 8, 10, 14, 18, 20, 24]
    assert [samples_read(steps, 10, 4, drop_last=True) for steps in range(6)] == [0, 4, 8, 12, 16, 20]
    assert samples_read(3, 2, 4) == 6


def test_a_second_training_in_the_folder_is_refused(prepared, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        result = tall("train", prepared)
    assert result.exit_code == 1
    assert f"Another process (pid {os.getpid()}) is at work in {tmp_path / 'out'}" in result.output.replace("\n", " ")


def test_a_full_disk_is_named(prepared, tmp_path, monkeypatch):
    def save(self, *args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:862] . unexpected pos 64 vs 0")

    monkeypatch.setattr(TALLTrainer, "_save_optimizer_and_scheduler", save)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        tall("train", prepared)
    usage = type(shutil.disk_usage(tmp_path))(1000, 1000, 0)
    monkeypatch.setattr("tall_hf.files.shutil.disk_usage", lambda folder: usage)
    result = tall("train", prepared, "--resume")
    assert result.exit_code == 1
    assert "is full ([enforce fail" in result.output.replace("\n", " ")
    assert "with --resume" in result.output.replace("\n", " ")


def test_two_launched_processes_train_together(prepared, tmp_path):
    """The command of the guide; on a machine without an accelerator as well."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = yaml.safe_load(prepared.read_text()) | {"per_device_train_batch_size": 2}
    del settings["use_cpu"]
    prepared.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [*launcher, "-m", "tall_hf.cli", "train", str(prepared)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Saved to") == 1
    made_with = json.loads((tmp_path / "out" / "checkpoint-4" / "training_settings.json").read_text())
    assert (made_with["batch_size"], made_with["processes"]) == (4, 2)


def test_lora_is_trained_and_merged(prepared, tmp_path):
    pytest.importorskip("peft")
    result = tall("train", prepared, "--lora_r", "2")
    assert result.exit_code == 0, result.output
    model = TALLForCausalLM.from_pretrained(tmp_path / "out" / "model")
    untrained = TALLForCausalLM.from_pretrained(tmp_path / "tall").state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, untrained[name])}
    assert "encoder.llm.layers.0.self_attn.q_proj.weight" in changed
    assert not changed & {name for name in changed if name.startswith(("decoder.", "encoder.translator."))}
    assert not any("lora" in name for name in model.state_dict())


def test_a_model_composed_in_bfloat16_is_trained_in_float32_and_stays_the_one_its_data_was_made_for(
    tmp_path, part_folders
):
    model, processor = compose(**part_folders(), source_bridge="gated", dtype="bfloat16")
    publishing.save(model, processor, tmp_path / "tall")
    texts = [processor.decode_target(row["labels"]) for row in make_rows(processor, 40)]
    settings = data.CorpusSettings(min_words=2, max_words=10, validation_share=0.2)
    data.prepare(model, processor, texts, tmp_path / "data", settings=settings, num_beams=1)
    flags = {"model": tmp_path / "tall", "dataset": tmp_path / "data", "output_dir": tmp_path / "out", **SHORT}
    result = tall("train", *(f"--{name}={value}" for name, value in flags.items()))
    assert result.exit_code == 0, result.output
    trained = TALLForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    before, adapters = model.state_dict(), trainable_names(trained)
    assert all(torch.equal(v, before[n].float()) for n, v in trained.state_dict().items() if n not in adapters)
    assert len(data.load_prepared(tmp_path / "data", trained, processor)["train"]) > 20


def test_a_dataset_of_another_translator_is_refused(prepared, tmp_path):
    model = TALLForCausalLM.from_pretrained(tmp_path / "tall")
    with torch.no_grad():
        model.encoder.translator.get_encoder().layers[0].fc1.bias.add_(1.0)
    model.save_pretrained(tmp_path / "tall")
    result = tall("train", prepared)
    assert result.exit_code == 1
    assert "made by another translator" in result.output.replace("\n", " ")


def test_the_plain_trainers_example(prepared, tmp_path, monkeypatch):
    script = EXAMPLES / "finetune_with_trainer.py"
    assert len(script.read_text().splitlines()) < 60
    monkeypatch.setattr(
        "sys.argv",
        [str(script), *(str(tmp_path / name) for name in ("tall", "data", "trained")), "--max_steps", "2"],
    )
    runpy.run_path(str(script), run_name="__main__")
    model, before = (TALLForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("trained", "tall"))
    assert not torch.equal(model["encoder.gate"], before["encoder.gate"])


def test_text_truncated_at_random_words_is_learned_by_its_continuation(prepared, tmp_path):
    report = json.loads((tmp_path / "data" / "prepare.json").read_text())
    report["corpus"]["truncation"] = "random_word"
    (tmp_path / "data" / "prepare.json").write_text(json.dumps(report))
    result = tall("train", prepared)
    assert result.exit_code == 1
    assert 'Set it to "continuation"' in " ".join(result.output.split())
    assert tall("train", prepared, "--loss_positions", "continuation").exit_code == 0


def test_text_that_is_not_truncated_is_learned_whole(prepared, tmp_path):
    report = json.loads((tmp_path / "data" / "prepare.json").read_text())
    report["corpus"]["truncation"] = "none"
    (tmp_path / "data" / "prepare.json").write_text(json.dumps(report))
    result = tall("train", prepared, "--loss_positions", "continuation")
    assert result.exit_code == 1
    assert 'Set it to "all"' in " ".join(result.output.split())
    assert tall("train", prepared, "--loss_positions", "all").exit_code == 0


def test_a_training_begins_with_what_the_one_before_it_has_learned(prepared, tmp_path):
    """A translation warm-up, then the task: here the task learns nothing."""
    assert tall("train", prepared, "--max_steps", "2").exit_code == 0
    task = ["--model", str(tmp_path / "out" / "model"), "--output_dir", str(tmp_path / "task")]
    assert tall("train", prepared, *task, "--max_steps", "2", "--learning_rate", "0").exit_code == 0
    folders = ("tall", "out/model", "task/model")
    composed, warm, after = (TALLForCausalLM.from_pretrained(tmp_path / one).state_dict() for one in folders)
    assert all(torch.equal(value, after[name]) for name, value in warm.items())
    assert any(not torch.equal(value, after[name]) for name, value in composed.items())


@pytest.mark.parametrize("name", ["he_qwen", "he_bloomz", "any_opus_pair", "microworld"])
def test_example_configurations_are_read(name, tmp_path):
    settings, args = TALLRun.read_settings(EXAMPLES / "configs" / f"{name}.yaml", use_cpu=True)
    assert settings.model
    if name.startswith("he_"):  # the paper's
        assert (args.learning_rate, args.lr_scheduler_type, args.loss_positions) == (5e-5, "cosine", "last_token")
        assert (args.num_train_epochs, args.per_device_train_batch_size, args.max_grad_norm) == (5, 8, 1.0)


def test_flags_go_before_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: m\ndataset: d\noutput_dir: o\nlearning_rate: 1e-4\nseed: 1\neval_strategy: no\nuse_cpu: true\n"
    )
    settings, args = TALLRun.read_settings(path)
    assert (settings.model, args.learning_rate, args.seed, args.eval_strategy) == ("m", 1e-4, 1, "no")
    path.write_text(
        f"{path.read_text()}lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {{min_lr: 1e-6}}\n"
    )
    assert TALLRun.read_settings(path)[1].lr_scheduler_kwargs == {"min_lr": 1e-6}
    config, overrides = TALLRun.read_command_line(
        [str(path), "--learning-rate", "2e-4", "--set", "seed=7", "--model=other", "--bf16", "false", "--do_predict"]
    )
    settings, args = TALLRun.read_settings(config, **overrides)
    assert (settings.model, args.learning_rate, args.seed, args.bf16) == ("other", 2e-4, 7, False)
    assert args.do_predict is True
    config, overrides = TALLRun.read_command_line(
        ["--do_predict", str(path), "--bf16", "no", "--resume-from-checkpoint", "c"]
    )
    assert (config, overrides) == (str(path), {"do_predict": "true", "bf16": "no", "resume_from_checkpoint": "c"})
    assert TALLRun.read_settings(None, **NEEDED, use_cpu=True)[0].dataset == "d"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "Unknown setting 'learning_rat'. Did you mean `learning_rate`"),
        ("qwertyuiop: 1", "Unknown setting 'qwertyuiop'"),
        ("max_steps: 2026-01-01", "`max_steps` must be int, got '2026-01-01'"),
        ("learning_rate: fast", "`learning_rate` must be float, got 'fast'"),
        ("max_steps: 1.5", "`max_steps` must be int, got 1.5"),
        ("seed: true", "`seed` must be int, got True"),
        ("light_checkpoints: 3", "`light_checkpoints` must be bool, got 3"),
        ("loss_positions: last", "`loss_positions` must be one of"),
        ("model:", "`model` is missing"),
        ("- a\n- b", "must hold `name: value` lines, got a list"),
        ("a: [", "is not a YAML file"),
        ("seed: 1\nlast_n: 2\nseed: 3", "'seed' is set twice"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    whole = "".join(f"{name}: {value}\n" for name, value in NEEDED.items() if not text.startswith((name, "-", "a:")))
    path.write_text(f"{whole}{text}\n")
    with pytest.raises(ValueError) as error:
        TALLRun.read_settings(path)
    assert message in str(error.value)


def test_a_date_is_a_name_and_no_date(tmp_path):
    (tmp_path / "config.yaml").write_text("model: m\ndataset: d\noutput_dir: 2026-01-01\n")
    args = TALLRun.read_settings(tmp_path / "config.yaml", run_name="2026-01-02", use_cpu=True)[1]
    assert (args.output_dir, args.run_name) == ("2026-01-01", "2026-01-02")


def test_bad_command_lines_are_named():
    with pytest.raises(ValueError, match=r"'\[qv\]_proj' is not YAML"):
        TALLRun.read_settings(None, **NEEDED, lora_target_modules="[qv]_proj")
    with pytest.raises(ValueError, match="one configuration file"):
        TALLRun.read_command_line(["a.yaml", "b.yaml"])
    with pytest.raises(ValueError, match="name=value"):
        TALLRun.read_command_line(["--set", "seed"])
    result = tall("train", "nowhere.yaml")
    assert result.exit_code == 1
    assert "nowhere.yaml" in result.output
