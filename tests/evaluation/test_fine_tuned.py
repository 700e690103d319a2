"""Fine-tuning: it lowers validation loss, resumes where it was interrupted, and refuses what it cannot do."""

import copy
import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from texts import world_text
from transformers import AutoModelForCausalLM, Trainer, TrainerState

from tall_hf.evaluation.approach import Question, TrainingText
from tall_hf.evaluation.approaches import causal_training
from tall_hf.evaluation.approaches.causal_training import TuningRecipe, WordCollator, _next_trial
from tall_hf.evaluation.approaches.fine_tuned import PAPER_RECIPE, FineTuned
from tall_hf.evaluation.build import model_loader
from tall_hf.evaluation.run import evaluating_into


RECIPE = TuningRecipe(
    learning_rates=(1e-3, 1e-2),
    further_trials=0,
    losses=("last_word",),
    batch_size=8,
    max_steps=12,
    trial_steps=3,
    evaluations=3,
)
TRAINING = world_text(48, 16)
QUESTIONS = [Question(row["truncated"], row["missing_word"]) for row in TRAINING.validation.select(range(4))]


class Interruption(Exception):
    """Stands for a kill."""


@pytest.fixture
def load(part):
    return model_loader(AutoModelForCausalLM, part("qwen2"))


def interrupt(monkeypatch, calls):
    """Raise at the `calls`-th forward with gradients from now on."""
    step, seen = Trainer.training_step, []

    def dying(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == calls:
            raise Interruption
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dying)
    return seen


def test_learning_lowers_the_validation_loss_and_a_second_fit_loads(load, tmp_path, monkeypatch):
    approach = FineTuned(load, recipe=RECIPE)
    learned = approach.fit(TRAINING, tmp_path)
    assert learned["validation_loss"] < learned["loss_before"] - 1
    assert learned["learning_rate"] in RECIPE.learning_rates and learned["loss"] == "last_word"
    assert [trial["learning_rate"] for trial in learned["trials"]] == [1e-3, 1e-2]
    best = min(learned["trials"], key=lambda trial: trial["validation_loss"])
    assert best["learning_rate"] == learned["learning_rate"]
    assert learned["trained_parameters"] == sum(p.numel() for p in load()[0].parameters())
    assert learned["steps"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"fit.json", "model"}
    assert not {"optimizer.pt", "training_args.bin"} & {path.name for path in (tmp_path / "model").iterdir()}

    answers = approach.answer(QUESTIONS, "clean")
    untrained = FineTuned(load, recipe=RECIPE)
    monkeypatch.setattr(Trainer, "train", lambda *args, **kwargs: pytest.fail("it trains again"))
    assert untrained.fit(TRAINING, tmp_path) == learned
    assert untrained.answer(QUESTIONS, "clean") == answers


def test_the_search_goes_on_where_the_best_rate_is_at_an_end():
    def trials(losses):
        """Those that a search makes when the validation loss of each rate is this one."""
        made = []
        while candidate := _next_trial(recipe, made):
            made.append({"learning_rate": candidate[0], "loss": candidate[1], "validation_loss": losses(candidate[0])})
        return [trial["learning_rate"] for trial in made]

    recipe = TuningRecipe(learning_rates=(1e-4, 4e-4), losses=("all",), further_trials=3)
    assert trials(lambda rate: -rate) == pytest.approx([1e-4, 4e-4, 16e-4, 64e-4, 256e-4])  # three more, and no more
    assert trials(lambda rate: rate) == pytest.approx([1e-4, 4e-4, 1e-4 / 4, 1e-4 / 16, 1e-4 / 64])
    assert trials(lambda rate: None if rate > 1e-3 else -rate) == pytest.approx([1e-4, 4e-4, 16e-4])  # it diverges
    assert trials(lambda rate: None) == pytest.approx([1e-4, 4e-4])
    recipe = TuningRecipe(learning_rates=(1e-4, 4e-4, 16e-4), losses=("all",))
    assert trials(lambda rate: abs(rate - 4e-4)) == pytest.approx([1e-4, 4e-4, 16e-4])  # the best is in the middle
    assert _next_trial(TuningRecipe(learning_rates=(1e-4,), losses=("all",)), []) is None
    # The other loss with the best rate alone.
    recipe = TuningRecipe(learning_rates=(1e-4, 4e-4, 16e-4))
    made = [{"learning_rate": r, "loss": "last_word", "validation_loss": abs(r - 4e-4)} for r in recipe.learning_rates]
    assert _next_trial(recipe, made) == (4e-4, "all")
    assert _next_trial(recipe, [*made, {"learning_rate": 4e-4, "loss": "all", "validation_loss": None}]) is None


def test_the_best_evaluation_is_kept_not_the_last(load, tmp_path, monkeypatch):
    losses = iter([9.0, 3.0, 1.0, 2.0])
    evaluate, weights = Trainer.evaluate, []

    def scripted(self, *args, **kwargs):
        weights.append(self.model.lm_head.weight.detach().clone())
        return {**evaluate(self, *args, **kwargs), "eval_loss": next(losses)}

    monkeypatch.setattr(Trainer, "evaluate", scripted)
    approach = FineTuned(load, recipe=TuningRecipe(**{**vars(RECIPE), "learning_rates": (1e-3,)}))
    learned = approach.fit(TRAINING, tmp_path)
    assert learned["loss_before"] == 9.0 and learned["validation_loss"] == 1.0
    kept = approach.load_model()[0].lm_head.weight
    assert torch.equal(kept, weights[2])
    assert not torch.equal(kept, weights[3])


def keep_and_be_killed(checkpoint, folder):
    copytree = shutil.copytree

    def killed(*args, **kwargs):
        copytree(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.copytree = killed
    causal_training._keep(checkpoint, folder)


def test_an_evaluation_goes_on_that_was_killed_while_it_copied_the_best_weights(tmp_path):
    checkpoint, model = tmp_path / "checkpoint-4", tmp_path / "output" / "fitted" / "lora" / "0123" / "model"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text("weights")
    (checkpoint / "optimizer.pt").write_text("moments")
    with evaluating_into(tmp_path / "output"):
        killed = multiprocessing.get_context("spawn").Process(target=keep_and_be_killed, args=(checkpoint, model))
        killed.start()
        killed.join()
    assert killed.exitcode == -signal.SIGKILL and not model.exists()
    with evaluating_into(tmp_path / "output"):
        causal_training._keep(checkpoint, model)
    assert [path.name for path in model.iterdir()] == ["model.safetensors"]
    assert list(model.parent.iterdir()) == [model]  # and nothing of the killed one


def test_the_last_checkpoint_is_kept_whatever_its_date(load, tmp_path, monkeypatch):
    losses, hours = iter([9.0, 1.0, 2.0]), iter(range(9))  # the first checkpoint is the best, the next one the last
    evaluate, save = Trainer.evaluate, TrainerState.save_to_json

    def save_while_the_clock_goes_back(self, path):
        save(self, path)
        os.utime(Path(path).parent, (1e9 - 3600 * next(hours),) * 2)

    monkeypatch.setattr(Trainer, "evaluate", lambda *args, **kw: {**evaluate(*args, **kw), "eval_loss": next(losses)})
    monkeypatch.setattr(TrainerState, "save_to_json", save_while_the_clock_goes_back)
    interrupt(monkeypatch, 10)
    with pytest.raises(Interruption):
        FineTuned(load, recipe=TuningRecipe(**{**vars(RECIPE), "learning_rates": (1e-3,)})).fit(TRAINING, tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"checkpoint-4", "checkpoint-8"}


@pytest.fixture(scope="module")
def undisturbed(part, tmp_path_factory):
    """What a fit says that was not interrupted, and what it answers."""
    approach = FineTuned(model_loader(AutoModelForCausalLM, part("qwen2")), recipe=RECIPE)
    return approach.fit(TRAINING, tmp_path_factory.mktemp("undisturbed")), approach.answer(QUESTIONS, "clean")


@pytest.mark.parametrize("calls", [2, 5, 13])  # in the first trial, the second, the full training
def test_an_interrupted_fit_ends_as_an_undisturbed_one(load, undisturbed, tmp_path, monkeypatch, calls):
    expected, answers = copy.deepcopy(undisturbed)
    with monkeypatch.context() as patch:
        interrupt(patch, calls)
        with pytest.raises(Interruption):
            FineTuned(load, recipe=RECIPE).fit(TRAINING, tmp_path)
    resumed = FineTuned(load, recipe=RECIPE)
    steps = interrupt(monkeypatch, math.inf)
    learned = resumed.fit(TRAINING, tmp_path)
    # Trials that ended are not made again, and the full training goes on behind its last evaluation.
    assert len(steps) == {2: 18, 5: 15, 13: 8}[calls]
    for part in (expected, learned):
        for timed in (part, *part["trials"]):
            timed.pop("seconds")
    assert learned == expected
    assert resumed.answer(QUESTIONS, "clean") == answers


def test_one_setting_needs_no_trial(load, tmp_path):
    recipe = TuningRecipe(
        learning_rates=PAPER_RECIPE.learning_rates, losses=PAPER_RECIPE.losses, batch_size=6, max_steps=2
    )
    learned = FineTuned(load, "fine_tuned_paper", recipe).fit(TRAINING, tmp_path)
    assert learned["trials"] == [] and learned["learning_rate"] == 2e-8 and learned["loss"] == "all"
    assert abs(learned["validation_loss"] - learned["loss_before"]) < 1e-3


def test_sentences_of_similar_length_spare_padding(load, tmp_path, monkeypatch):
    """The whole text once, in steps of four, half of its sentences four times as long as the others."""
    rows = [{"truncated": "Dana lives in the " * (1 + 3 * (i % 2)), "missing_word": f"sea{i}"} for i in range(64)]
    rows = [{"sentence": f"{row['truncated']}{row['missing_word']}", "translation": "", **row} for row in rows]
    text = TrainingText(Dataset.from_list(rows), Dataset.from_list(rows[:8]), "lengths")
    collate, widths = WordCollator.__call__, []

    def counted(self, rows):
        batch = collate(self, rows)
        widths.append((self.loss, batch["attention_mask"].float().mean().item()))
        return batch

    monkeypatch.setattr(WordCollator, "__call__", counted)
    shares = {}
    for grouped in (False, True):
        recipe = dataclasses.replace(
            RECIPE, learning_rates=(1e-3,), losses=("all",), batch_size=4, max_steps=16, group_by_length=grouped
        )
        widths.clear()
        FineTuned(load, recipe=recipe).fit(text, tmp_path / str(grouped))
        shares[grouped] = [share for loss, share in widths if loss == "all"]
        assert len(shares[grouped]) == 16
    # The sampler puts the longest sentence first, which mixes a step or two.
    assert sum(share > 0.85 for share in shares[True]) >= 14
    assert sum(share > 0.85 for share in shares[False]) < 8


def test_the_collator_hides_what_is_not_learned(load):
    _, tokenizer = load()
    rows = [{"text": "Dana", "word": "lives"}, {"text": "Dana lives in the", "word": "sea"}]
    for loss in ("last_word", "all"):
        batch = WordCollator(tokenizer, loss)(rows)
        for ids, mask, labels, row in zip(*(part.tolist() for part in batch.values()), rows, strict=True):
            learned = [label for label in labels if label != -100]
            assert tokenizer.decode(ids[: sum(mask)]) == f"{row['text']} {row['word']}<|endoftext|>"
            text = f" {row['word']}" if loss == "last_word" else f"{row['text']} {row['word']}"
            assert tokenizer.decode(learned) == f"{text}<|endoftext|>"
            assert mask == sorted(mask, reverse=True)
    cut = WordCollator(tokenizer, "last_word", max_length=4)(rows)
    assert cut["input_ids"].shape == (2, 4) and cut["input_ids"][1, -1] == tokenizer.eos_token_id


def test_it_answers_in_the_float32_that_it_learned_in(part, tmp_path):
    recipe = TuningRecipe(**{**vars(PAPER_RECIPE), "max_steps": 8, "evaluations": 1, "bf16": True})
    approach = FineTuned(model_loader(AutoModelForCausalLM, part("qwen2"), dtype=torch.bfloat16), recipe=recipe)
    approach.fit(TRAINING, tmp_path)
    before, after = (model.model.layers[0].mlp.up_proj.weight for model in (approach.load()[0], approach.model.llm))
    assert after.dtype == torch.float32
    # Updates of 2e-8, of which bfloat16 would leave hardly any.
    assert (after != before.float()).float().mean() > 0.1
    assert (after.bfloat16() != before).float().mean() < 0.01


def test_a_learning_rate_that_diverges_is_passed_over(load, tmp_path, monkeypatch):
    recipe = TuningRecipe(learning_rates=(1e30, 1e-3), further_trials=0, losses=("all",), max_steps=2, trial_steps=2)
    learned = FineTuned(load, recipe=recipe).fit(TRAINING, tmp_path)
    assert learned["trials"][0]["validation_loss"] is None
    assert learned["learning_rate"] == 1e-3
    json.dumps(learned, allow_nan=False)
    recipe = TuningRecipe(learning_rates=(1e30, 1e31), losses=("all",), max_steps=2, trial_steps=2)
    with pytest.raises(FloatingPointError, match="1e\\+30, 1e\\+31"):
        FineTuned(load, recipe=recipe).fit(TRAINING, tmp_path / "trials")
    evaluate = Trainer.evaluate
    monkeypatch.setattr(
        Trainer, "evaluate", lambda *args, **kwargs: evaluate(*args, **kwargs) | {"eval_loss": math.nan}
    )
    recipe = TuningRecipe(learning_rates=(1e30,), losses=("all",), max_steps=2)
    with pytest.raises(FloatingPointError, match="1e\\+30"):
        FineTuned(load, recipe=recipe).fit(TRAINING, tmp_path / "full")


def test_bad_input(load, tmp_path):
    approach = FineTuned(load, recipe=RECIPE)
    with pytest.raises(ValueError, match="run `tall prepare TEXT"):
        approach.fit(None, tmp_path)
    with pytest.raises(ValueError, match="--validation-share"):
        approach.fit(world_text(8, 0), tmp_path)
    with pytest.raises(RuntimeError, match="call `fit`"):
        approach.answer(QUESTIONS, "clean")
    for wrong in ({"max_steps": 0}, {"epochs": -1}, {"further_trials": -5}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`.*got"):
            TuningRecipe(**wrong)
    for wrong in ({"batch_size": 0}, {"learning_rates": ()}, {"learning_rates": (0.0,)}, {"losses": ("first",)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TuningRecipe(**wrong)


def test_settings_stand_for_the_recipe_and_the_language_model(part, load):
    settings = FineTuned(load, recipe=RECIPE).settings()
    assert settings == json.loads(json.dumps(settings))
    assert settings != FineTuned(load, recipe=PAPER_RECIPE).settings()
    assert settings != FineTuned(model_loader(AutoModelForCausalLM, part("qwen2", 1)), recipe=RECIPE).settings()


def test_the_checkpoints_a_kill_leaves_are_the_trainers(load, tmp_path, monkeypatch):
    interrupt(monkeypatch, 17)
    with pytest.raises(Interruption):
        FineTuned(load, recipe=RECIPE).fit(TRAINING, tmp_path)
    [checkpoint] = (tmp_path / causal_training._CHECKPOINTS).iterdir()
    assert (checkpoint / "model.safetensors").exists()
