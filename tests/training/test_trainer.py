"""TALLTrainer on tiny models: what is learned, where, and what is kept."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from trainings import SHORT, make_rows, without_dropout
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from tall_hf import LastTokenCollator, TALLTrainer, load_light
from tall_hf.training.checkpoints import last_checkpoint
from tall_hf.training.light import trainable_names


class Recorder(TrainerCallback):
    """Keeps the gradients of the first step as the optimizer sees them, and every logged loss."""

    def __init__(self, model):
        self.model, self.grads, self.losses = model, None, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.grads is None:
            self.grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])


def rows_through_head(model):
    """Counts of rows that reached the LM head, one a call."""
    counts = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[:-1].numel()))
    return counts


@pytest.mark.parametrize(("plain", "positions"), [(True, "last_word"), (False, "last_word"), (False, "all")])
def test_accumulated_small_batches_equal_the_big_one(fresh, arguments, tmp_path, plain, positions):
    runs = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        model, processor = fresh("gated")
        without_dropout(model)
        settings = {
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "train_sampling_strategy": "sequential",
            "max_grad_norm": 0.0,
        }
        rows, recorder = make_rows(processor, 16), Recorder(model)
        common = {"model": model, "train_dataset": rows, "callbacks": [recorder]}
        if plain:
            args = TrainingArguments(output_dir=str(tmp_path), **{**SHORT, **settings})
            Trainer(args=args, data_collator=LastTokenCollator(processor), **common).train()
        else:
            settings["loss_positions"] = positions
            TALLTrainer(args=arguments(**settings), processing_class=processor, **common).train()
        runs.append(recorder)
    big, small = runs
    assert small.losses == pytest.approx(big.losses, abs=2e-4)  # the Trainer logs rounded losses
    assert small.grads.keys() == big.grads.keys()
    for name, grad in big.grads.items():
        torch.testing.assert_close(small.grads[name], grad, rtol=1e-4, atol=1e-6)


def test_training_changes_the_adapters_and_nothing_else(trainer):
    made = trainer()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= trainable_names(made.model)
    unmoved = trainable_names(made.model) - changed
    assert not unmoved, unmoved


@pytest.mark.parametrize("positions", ["last_token", "last_word", "last_n", "all"])
def test_only_positions_with_a_loss_reach_the_head_in_training(trainer, positions):
    made = trainer(loss_positions=positions, last_n=2 if positions == "last_n" else None, eval_rows=4)
    counts = rows_through_head(made.model)
    learned = []
    step = made.training_step
    made.training_step = lambda model, inputs, *rest: (
        learned.append(int((inputs["labels"] != -100).sum())),
        step(model, inputs, *rest),
    )[1]
    made.train()
    assert counts == learned
    assert len(counts) == 4
    rows = [made.train_dataset[i] for i in range(16)]
    totals = {
        one: int((LastTokenCollator(made.processing_class, one, n)(rows)["labels"] != -100).sum())
        for one, n in (("last_token", None), ("last_word", None), ("last_n", 2), ("all", None))
    }
    # Four steps of four rows are all of them, and every setting learns another number of tokens.
    assert sum(learned) == totals[positions] and len(set(totals.values())) == 4
    counts.clear()
    made.evaluate()
    labels = made.data_collator([made.eval_dataset[i] for i in range(4)])["labels"]
    assert counts == [labels.numel()]


def test_a_frozen_layer_runs_twice_a_step_with_gradient_checkpointing(trainer):
    calls = {}
    for checkpointing in (False, True):
        made = trainer(max_steps=1, gradient_checkpointing=checkpointing)
        layers = [m for m in made.model.encoder.llm.modules() if isinstance(m, GradientCheckpointingLayer)]
        count = calls.setdefault(checkpointing, [])
        layers[0].input_layernorm.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        assert not any(inner.training for layer in layers for inner in layer.children())
        made.train()
        assert not any(inner.training for layer in layers for inner in layer.children())
    assert (len(calls[False]), len(calls[True])) == (1, 2)


@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_parts_in_a_dtype_of_their_own(trainer, bf16):
    made = trainer(frozen_dtype="bfloat16", eval_rows=4, bf16=bf16)
    made.train()
    for name, parameter in made.model.named_parameters():
        adapter = name.split(".")[1] in (
            "source_alignment",
            "source_decoder",
            "gate",
            "target_alignment",
            "target_encoder",
        )
        assert parameter.dtype == (torch.float32 if adapter and name.startswith("encoder.") else torch.bfloat16), name
    assert made.model.encoder.llm.rotary_emb.inv_freq.dtype == torch.float32
    assert math.isfinite(made.evaluate()["eval_loss"])


def test_metrics_of_the_missing_word(trainer):
    made = trainer(eval_rows=7, per_device_eval_batch_size=3, label_smoothing_factor=0.1)
    metrics = made.evaluate()
    model, losses, words, tokens = made.model.eval(), [], [], []
    for row in made.eval_dataset:
        batch = made.data_collator([row])
        with torch.no_grad():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
        learned = batch["labels"][0] != -100
        labels = batch["labels"][0][learned]
        losses.append(nn.functional.cross_entropy(logits[learned], labels, reduction="none"))
        right = logits[learned].argmax(-1) == labels
        tokens.append(right.float())
        words.append(bool(right.all()))
    loss = torch.cat(losses).mean().item()
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert metrics["eval_token_accuracy"] == pytest.approx(torch.cat(tokens).mean().item())
    assert metrics["eval_last_word_accuracy"] == pytest.approx(sum(words) / len(words))


def test_smoothed_labels_stand_beside_their_logits(trainer):
    made = trainer(eval_rows=4, label_smoothing_factor=0.1)
    batch = made.data_collator(list(made.eval_dataset))
    with torch.no_grad():
        logits = made.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        loss = made.compute_loss(made.model, dict(batch)).item()
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_not_finite_loss_stops_and_names_step_and_checkpoint(trainer):
    made = trainer(save_strategy="steps", save_steps=1)

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                control.should_save = True

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    made.model.encoder.target_encoder.layers[0].fc1.weight.fill_(float("nan"))

    made.add_callback(Poison())
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3.*checkpoint-2\b"):
        made.train()
    good, _ = load_light(last_checkpoint(made.args.output_dir))
    assert all(parameter.isfinite().all() for parameter in good.parameters())


def test_not_finite_gradients_stop_before_the_weights_change(trainer):
    made = trainer(save_strategy="steps", save_steps=1)
    weight = made.model.encoder.target_alignment.up_proj.weight
    weight.register_hook(lambda grad: grad * float("inf") if made.state.global_step == 1 else grad)
    with pytest.raises(FloatingPointError, match=r"gradient norm is (nan|inf) at step 2"):
        made.train()
    assert weight.isfinite().all()


def test_early_stopping_and_the_best_checkpoint(trainer):
    settings = {
        "eval_rows": 8,
        "max_steps": 40,
        "learning_rate": 0.05,  # too high to get better for long
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "early_stopping_patience": 2,
    }
    made = trainer(**settings)
    made.train()
    losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    assert made.state.global_step < 40
    assert made.state.best_metric == min(losses)
    assert len(losses) == losses.index(min(losses)) + 3
    assert made.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)

    again = trainer(**settings)
    again.train(resume_from_checkpoint=True)  # not trained on
    assert again.state.global_step == made.state.global_step
    weights, expected = again.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_saving_the_best_alone_ends_with_the_best(trainer):
    settings = {"eval_rows": 8, "max_steps": 8, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best"}
    assert trainer(**settings).args.metric_for_best_model == "loss"
    # "The best" turned round, so that it is not the last.
    made = trainer(**settings, learning_rate=0.05, metric_for_best_model="loss", greater_is_better=True)
    made.train()
    losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    assert losses[-1] < max(losses)
    assert made.evaluate()["eval_loss"] == pytest.approx(max(losses), rel=1e-5)


def test_a_finished_training_is_not_trained_on(trainer):
    # Five steps of four an epoch: it ends in the middle of the second.
    settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 5, "lr_scheduler_type": "constant"}
    made, again = trainer(**settings), trainer(**settings)
    made.train()
    result = again.train(resume_from_checkpoint=True)
    assert result.global_step == again.state.global_step == 5
    weights, expected = again.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_plot_is_written_at_the_end(trainer):
    made = trainer(eval_rows=4, eval_strategy="steps", eval_steps=2)
    made.train()
    assert Path(made.args.output_dir, "training.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_training_ends_and_says_what_to_install(trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    made = trainer(max_steps=1)
    warnings = []
    monkeypatch.setattr("tall_hf.training.adapter_trainer.logger.warning", warnings.append)
    made.train()
    assert any("pip install 'tall-hf[train]'" in warning for warning in warnings)


def test_length_groups_come_in_an_order_of_their_epoch(trainer):
    made = trainer(rows=32, train_sampling_strategy="group_by_length")
    sampler = made._get_train_sampler()
    first = list(sampler)
    assert sorted(first) == list(range(32))
    assert list(sampler) == first
    made.state.epoch = 1.25
    second = list(sampler)
    assert second != first
    lengths = [sampler.lengths[index] for index in second]
    batches = [lengths[start : start + 4] for start in range(0, 32, 4)]
    spread = sum(max(batch) - min(batch) for batch in batches)
    assert spread < sum(max(sampler.lengths) - min(sampler.lengths) for _ in batches) / 2


def test_what_is_not_a_talls_is_refused(fresh, arguments, tmp_path):
    model, processor = fresh("none")
    rows = make_rows(processor, 4)
    with pytest.raises(TypeError, match="TALLTrainingArguments"):
        TALLTrainer(model, TrainingArguments(output_dir=str(tmp_path)), processing_class=processor)
    with pytest.raises(TypeError, match="TALLProcessor"):
        TALLTrainer(model, arguments(), processing_class=processor.tokenizer)
    with pytest.raises(ValueError, match="data_collator"):
        TALLTrainer(model, arguments(), LastTokenCollator(processor), rows, processing_class=processor)
    with pytest.raises(ValueError, match="`metric_for_best_model` must be one of 'loss'.*got 'bleu'"):
        TALLTrainer(model, arguments(metric_for_best_model="bleu"), train_dataset=rows, processing_class=processor)
    with pytest.raises(ValueError, match="cannot be grouped by length"):
        grouped = arguments(train_sampling_strategy="group_by_length")
        TALLTrainer(model, grouped, train_dataset=rows.to_iterable_dataset(), processing_class=processor)
    with pytest.raises(TypeError, match="`model` is missing"):
        TALLTrainer(args=arguments(), train_dataset=rows, processing_class=processor)
    with pytest.raises(ValueError, match="train_dataset.*empty"):
        TALLTrainer(model, arguments(), train_dataset=rows.select([]), processing_class=processor)


def test_resume_with_other_settings_names_them(trainer):
    first = trainer(save_strategy="steps", save_steps=2)
    first.train()
    for settings, message in (
        ({"loss_positions": "last_token"}, "loss_positions: 'last_word' then, 'last_token' now"),
        ({"per_device_train_batch_size": 2}, "batch_size: 4 then, 2 now"),
        ({"seed": 7}, "seed: 42 then, 7 now"),
        ({"rows": 15}, "train_dataset: .* then, .* now"),
        ({"max_steps": 6}, "max_steps: 4 then, 6 now"),
        ({"metric_for_best_model": "token_accuracy"}, "metric_for_best_model: None then, 'token_accuracy' now"),
        ({"eval_rows": 4}, "eval_dataset: None then, "),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(**settings).train(resume_from_checkpoint=True)
    again = trainer(max_steps=6, allow_changed_settings=True)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 6


def test_weights_alone_are_not_resumed_from(trainer):
    trainer(save_strategy="steps", save_steps=2, save_only_model=True).train()
    with pytest.raises(ValueError, match="weights alone"):
        trainer(save_only_model=True, max_steps=6).train(resume_from_checkpoint=True)


def test_predictions_come_in_the_order_of_the_rows(trainer):
    made = trainer(eval_rows=10, train_sampling_strategy="group_by_length", per_device_eval_batch_size=3)
    labels = made.predict(made.eval_dataset).label_ids
    words = [[token for token in row if token != -100] for row in labels.tolist()]
    assert words == [row["labels"][-len(word) :] for row, word in zip(made.eval_dataset, words, strict=True)]


def test_nothing_to_resume(trainer):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        trainer().train(resume_from_checkpoint=True)


def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path):
    for step, content in ((5, json.dumps({"global_step": 5})), (10, json.dumps({"global_step": 10})), (15, '{"glo')):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(content)
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-10" / "training_settings.json").write_text(json.dumps({"processes": 2}))
    for rank in (0, 1):  # the second process was killed before it had written its own
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
        (tmp_path / "checkpoint-10" / f"rng_state_{rank}.pth").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    # As an older version wrote them.
    (tmp_path / "checkpoint-10" / "training_settings.json").write_text(json.dumps({"seed": 42}))
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "nowhere") is None
