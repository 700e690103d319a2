"""The loss: its value, which positions count, accumulation through the HF Trainer, and that training lowers it."""

import copy

import parts
import pytest
import torch
from batches import batch, random_rows
from datasets import Dataset
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from tall_hf import LastTokenCollator


@pytest.fixture
def trained(fresh):
    """A model without dropout, its processor, and eight training rows of different lengths."""
    model, processor = fresh("gated", alignment_dropout=0.0)
    for module in model.modules():
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model, processor, training_rows(processor)


def training_rows(processor):
    texts = [" ".join(line.split()[:-1]) for line in parts.HEBREW]
    translations = [*parts.ENGLISH, parts.ENGLISH[0]]
    rows = processor(text=texts, translations=translations, text_target=parts.HEBREW)
    return [{name: rows[name][i] for name in rows} for i in range(len(texts))]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_is_the_mean_over_labels(composed, bridge):
    model, processor = composed(bridge)
    inputs = batch(random_rows(model, processor))
    labels = torch.full_like(inputs["decoder_input_ids"], -100)
    labels[0, -1], labels[1, -2], labels[1, -1] = 4, 5, 6
    with torch.no_grad():
        output = model(**inputs, labels=labels)
        log_probs = output.logits.log_softmax(-1)
    # The label stands where its token is predicted: nothing is shifted.
    expected = -(log_probs[0, -1, 4] + log_probs[1, -2, 5] + log_probs[1, -1, 6])
    torch.testing.assert_close(output.loss, expected / 3)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs, labels=labels, num_items_in_batch=12).loss, expected / 12)
        torch.testing.assert_close(
            model(**inputs, labels=labels, num_items_in_batch=torch.tensor(12)).loss, expected / 12
        )
        assert model(**inputs, labels=labels).past_key_values is None


def test_the_head_reads_a_block_of_memory(composed):
    """Of a slice torch multiplies each row by a copy of the head's weights, or with one row copies them all the same."""
    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor))
    read = []
    hook = model.lm_head.register_forward_pre_hook(lambda head, states: read.append(states[0]))
    with torch.no_grad():
        for kept in (1, 2, 100):
            for rows in (inputs, {name: tensor[:1] for name, tensor in inputs.items()}):
                model(**rows, logits_to_keep=kept)
    hook.remove()
    assert {states.shape[1] for states in read} == {1, 2, inputs["decoder_input_ids"].shape[1]}
    for states in read:
        # By strides: torch calls a single row of a slice contiguous.
        assert states.stride() == torch.empty(states.shape).stride()


def test_logits_to_keep(composed):
    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        whole = model(**inputs).logits
        torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, whole[:, -2:])
        positions = torch.tensor([0, 3])
        torch.testing.assert_close(model(**inputs, logits_to_keep=positions).logits, whole[:, positions])
        labels = torch.full_like(inputs["decoder_input_ids"], -100)
        labels[:, -1] = 5
        torch.testing.assert_close(
            model(**inputs, labels=labels, logits_to_keep=1).loss, model(**inputs, labels=labels).loss
        )


def test_training_computes_logits_where_there_is_a_loss(trained):
    model, processor, rows = trained
    inputs = LastTokenCollator(processor)(rows)
    labels = inputs["labels"]
    with torch.no_grad():
        evaluated = model.eval()(**inputs)
        output = model.train()(**inputs)
        assert evaluated.logits.shape[:2] == labels.shape
        torch.testing.assert_close(output.logits, evaluated.logits[labels != -100])
        torch.testing.assert_close(output.loss, evaluated.loss)
        # A loss that is computed outside gets every position.
        without = model(**{name: value for name, value in inputs.items() if name != "labels"})
        assert without.logits.shape[:2] == labels.shape
        assert without.past_key_values is None


@pytest.mark.parametrize("training", [False, True])
def test_labels_without_a_position_are_refused(fresh, training):
    model, processor = fresh("gated")
    model.train(training)
    inputs = batch(random_rows(model, processor))
    labels = torch.full_like(inputs["decoder_input_ids"], -100)
    with pytest.raises(ValueError, match="`labels` are -100 everywhere.*collator's loss positions"):
        model(**inputs, labels=labels)
    labels[0, 0] = 5
    with pytest.raises(ValueError, match="`labels` are -100 everywhere"):
        model(**inputs, labels=labels, logits_to_keep=1)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("decoder_input_ids", r"`decoder_input_ids`, the start token.*processor\(text=..., translations=...\)"),
        ("llm_input_ids", r"`llm_input_ids`, the tokens of the translation, are missing.*model.translate"),
        ("input_ids", "Pass either `input_ids` and `llm_input_ids`, or `encoder_outputs`"),
    ],
)
def test_missing_inputs_are_named(composed, left_out, message):
    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor))
    del inputs[left_out]
    with pytest.raises(ValueError, match=message):
        model(**inputs)


@pytest.mark.parametrize(("name", "limit"), [("input_ids", 64), ("llm_input_ids", 64), ("decoder_input_ids", 72)])
def test_inputs_beyond_the_positions_are_refused(composed, name, limit):
    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor))
    for length, message in ((limit + 1, f"reaches {limit + 1} tokens, but .* {limit} only"), (0, "its length is 0")):
        inputs[name] = torch.full((4, length), 5)
        inputs[name.replace("input_ids", "attention_mask")] = torch.ones(4, length, dtype=torch.long)
        with pytest.raises(ValueError, match=f"`{name}`.* {message}"):
            model(**inputs)


@pytest.mark.parametrize("loss_positions", ["last_token", "last_word", "all"])
def test_small_batches_add_up_to_the_big_one(trained, loss_positions):
    model, processor, rows = trained
    collator = LastTokenCollator(processor, loss_positions=loss_positions)
    model.train()
    whole = collator(rows)
    count = (whole["labels"] != -100).sum()
    loss = model(**whole).loss
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    total = 0
    for start in range(0, 8, 2):
        part = model(**collator(rows[start : start + 2]), num_items_in_batch=count).loss
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss.item(), rel=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-6)


def train(model, processor, rows, folder, loss_positions="last_word", **arguments):
    """Train with the plain Trainer; (losses logged, the first step's gradients)."""
    first = []

    class Recorder(Trainer):
        def _clip_grad_norm(self, model):
            first.append(gradients(model))
            return super()._clip_grad_norm(model)

    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "lr_scheduler_type": "constant",
        "learning_rate": 5e-3,
        "disable_tqdm": True,
        "max_grad_norm": 1e9,
        "seed": 0,
    }
    trainer = Recorder(
        model=model,
        args=TrainingArguments(**defaults | arguments),
        train_dataset=Dataset.from_list(rows),
        data_collator=LastTokenCollator(processor, loss_positions=loss_positions),
    )
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log], first


@pytest.mark.parametrize("loss_positions", ["last_word", "all"])
def test_accumulation_in_the_trainer_equals_the_big_batch(trained, tmp_path, loss_positions):
    """Rows with different numbers of labels, so that a mean of means would show."""
    model, processor, rows = trained
    runs = []
    for size, steps in ((8, 1), (2, 4)):
        twin = copy.deepcopy(model)
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        losses, first = train(twin, processor, rows, tmp_path, loss_positions, **settings)
        runs.append((losses[0], first[0], twin.state_dict()))
    (loss, grads, weights), (split_loss, split_grads, split_weights) = runs
    assert split_loss == pytest.approx(loss, rel=1e-3)
    assert grads.keys() == split_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(split_grads[name], grad, rtol=1e-3, atol=1e-6)
    for name, before in model.state_dict().items():
        if not dict(model.named_parameters()).get(name, before).requires_grad:
            assert torch.equal(weights[name], before), name
    expected = model(**LastTokenCollator(processor, loss_positions=loss_positions)(rows)).loss
    assert loss == pytest.approx(expected.item(), rel=1e-3)
    assert split_weights.keys() == weights.keys()


def test_training_with_the_trainers_defaults_lowers_the_loss(fresh, tmp_path, bridge):
    model, processor = fresh(bridge)
    rows = [{**row, "text": "a column that forward does not know"} for row in training_rows(processor)]
    held = LastTokenCollator(processor)(rows)
    before = model(**held).loss.item()
    losses, _ = train(model, processor, rows, tmp_path, num_train_epochs=15, per_device_train_batch_size=8)
    after = model.eval()(**held).loss.item()
    assert len(losses) == 15
    assert after < 0.9 * before


def test_gradient_checkpointing_in_the_trainer(trained, tmp_path):
    model, processor, rows = trained
    settings = {"max_steps": 2, "per_device_train_batch_size": 8}
    plain, _ = train(copy.deepcopy(model), processor, rows, tmp_path, **settings)
    checkpointed, _ = train(copy.deepcopy(model), processor, rows, tmp_path, gradient_checkpointing=True, **settings)
    assert checkpointed == pytest.approx(plain, rel=1e-3)


def test_loss_of_a_wrong_label_differs(composed):
    """The value above is not an accident of the label: cross-entropy by another road."""
    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor))
    labels = torch.full_like(inputs["decoder_input_ids"], -100)
    labels[:, -1] = 7
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    assert output.loss.item() == pytest.approx(
        functional.cross_entropy(output.logits[:, -1], labels[:, -1]).item(), rel=1e-5
    )
