"""Trainings in real processes: killed and resumed, on two processes, sharded, and evaluated by the plain Trainer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainings import SHORT, make_rows, without_dropout

from tall_hf import TALLForCausalLM, TALLProcessor, load_light


CHILD = Path(__file__).with_name("child.py")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def start(fresh, tmp_path):
    """`start(name, processes=1, **request)` runs child.py to its end: (return code, result, state dict or None)."""
    model, processor = fresh("gated")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    make_rows(processor, 24).save_to_disk(tmp_path / "rows")
    make_rows(processor, 10, seed=1).save_to_disk(tmp_path / "eval")

    def run(name, processes=1, settings=None, evaluate=False, **request):
        files = {part: str(tmp_path / f"{name}.{part}") for part in ("result", "weights", "checkpoint")}
        request = {
            "model": str(tmp_path / "model"),
            "rows": str(tmp_path / "rows"),
            **({"eval_rows": str(tmp_path / "eval")} if evaluate else {}),
            "settings": {**SHORT, "output_dir": str(tmp_path / name.split("-")[0]), **(settings or {})},
            **files,
            **request,
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [*launcher, str(CHILD), str(path)],
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(done.stderr[-4000:])
        if done.returncode:
            return done.returncode, None, None
        weights = torch.load(files["weights"], weights_only=True) if Path(files["weights"]).exists() else None
        return 0, json.loads(Path(files["result"]).read_text()), weights

    return run


def test_killed_and_resumed_equals_undisturbed_bit_for_bit(start):
    settings = {
        "max_steps": 14,  # of 6 an epoch: the third has begun
        "save_strategy": "steps",
        "save_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "loss_curriculum": 0.7,
        "alignment_learning_rate": 2e-2,
        "train_sampling_strategy": "group_by_length",
        "warmup_steps": 3,
    }
    _, expected, weights = start("undisturbed", settings=settings, dropout=True, evaluate=True)
    # Killed inside the second epoch, behind a checkpoint inside it.
    killed = {"settings": settings, "dropout": True, "evaluate": True}
    assert start("killed", kill_at=9, **killed)[0] == -signal.SIGKILL
    _, resumed, resumed_weights = start("killed-resumed", resume=True, **killed)
    assert resumed["losses"] == expected["losses"]
    assert resumed["metrics"]["eval_loss"] == expected["metrics"]["eval_loss"]
    assert all(torch.equal(resumed_weights[name], weights[name]) for name in weights)


def test_two_processes_equal_one_with_the_same_global_batch_and_their_checkpoint_loads_in_one(start, tmp_path):
    settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 5}
    _, one, _ = start("one", settings={**settings, "per_device_train_batch_size": 8}, evaluate=True)
    _, two, weights = start("two", processes=2, settings=settings, evaluate=True)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert len(one["losses"]) == 5
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name in ("eval_loss", "eval_last_word_accuracy", "eval_token_accuracy"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-4)
    loaded, _ = load_light(tmp_path / "two" / "checkpoint-5", base=tmp_path / "model")
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_two_processes_share_a_stream(start):
    settings = {"max_steps": 3}
    _, one, _ = start("one", settings={**settings, "per_device_train_batch_size": 8}, streaming=True)
    _, two, _ = start("two", processes=2, settings=settings, streaming=True)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_plain_trainer_evaluates_with_metrics_and_label_smoothing(start, tmp_path, processes):
    settings = {
        "max_steps": 2,
        "per_device_eval_batch_size": 4 // processes,
        "label_smoothing_factor": 0.2,
        "remove_unused_columns": True,
    }
    _, result, weights = start("plain", processes=processes, plain=True, settings=settings, evaluate=True)
    assert result["world_size"] == processes
    model = without_dropout(TALLForCausalLM.from_pretrained(tmp_path / "model"))
    model.load_state_dict(weights)
    processor = TALLProcessor.from_pretrained(tmp_path / "model")
    right, tokens = 0, 0
    for row in make_rows(processor, 10, seed=1):
        target = row["labels"]
        ids = torch.tensor([processor.decoder_start_token_ids + target[:-1]])
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([row["input_ids"]]),
                llm_input_ids=torch.tensor([row["llm_input_ids"]]),
                decoder_input_ids=ids,
            ).logits[0]
        starts = processor.word_pieces()[0]
        begin = max(index for index, token in enumerate(target) if starts[token])
        right += int((logits.argmax(-1)[begin:] == torch.tensor(target[begin:])).sum())
        tokens += len(target) - begin
    assert result["metrics"]["eval_tokens"] == tokens
    assert result["metrics"]["eval_accuracy"] == pytest.approx(right / tokens)


def test_fully_sharded_on_two_processes_equals_one(start, tmp_path):
    _, one, _ = start("whole", steps=3)
    _, two, _ = start("sharded", processes=2, steps=3)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    loaded, expected = (load_light(tmp_path / f"{name}.checkpoint")[0] for name in ("sharded", "whole"))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-5)
