"""LayerFusionTrainer on tiny models: what is learned and measured, and light checkpoints that resume bit for bit."""

import json

import pytest
import torch
from datasets import Dataset

from tall_hf import (
    LayerFusionForCausalLM,
    LayerFusionTrainer,
    LayerFusionTrainingArguments,
    TALLTrainingArguments,
    compose_layer_fusion,
    load_light,
)
from tall_hf.saving import save
from tall_hf.training.light import PINS_NAME, cast_frozen, frozen_fingerprint, save_light, trainable_names


TEXTS = ["דנה גרה בחיפה", "שלום", "משה", "נועה אוהבת לחם"]
ANSWERS = ["Dana lives by a big sea", "world", "it", "Noa"]


@pytest.fixture
def composed_fusion(part):
    """`build(**switches)` is a fresh model of an NLLB encoder and a Llama, and its processor."""

    folders = part("nllb"), part("llama")  # written at their first use, which draws random numbers

    def build(**switches):
        torch.manual_seed(0)
        switches = {"source_fusion": "token_softmax", "source_lang": "heb_Hebr", **switches}
        return compose_layer_fusion(*folders, **switches)

    return build


@pytest.fixture
def trainer(composed_fusion, tmp_path):
    """`make(output, rows, switches, **settings)` is a LayerFusionTrainer of a fresh model, four steps of two rows."""

    def make(output="out", rows=8, switches=None, **settings):
        model, processor = composed_fusion(**(switches or {}))
        settings = {
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 3,
            "learning_rate": 1e-2,
            "eval_steps": 2,
            "save_steps": 2,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            **settings,
        }
        dataset = Dataset.from_dict(dict(processor(text=TEXTS * 2, prompt="It is", text_target=ANSWERS * 2)))
        return LayerFusionTrainer(
            model=model,
            args=LayerFusionTrainingArguments(output_dir=tmp_path / output, **settings),
            train_dataset=dataset.select(range(rows)),
            eval_dataset=dataset.select(range(5)),
            processing_class=processor,
        )

    return make


def test_the_frozen_parts_are_known_by_their_names(composed_fusion, composed):
    assert composed_fusion()[0].frozen_prefixes == ("llm.", "encoder.")
    assert composed("gated")[0].frozen_prefixes == (
        "decoder.",
        "lm_head.",
        "encoder.translator.",
        "encoder.llm.",
        "final_logits_bias",
    )


def same_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_papers_recipe_is_the_default(tmp_path):
    args = LayerFusionTrainingArguments(output_dir=tmp_path)
    assert (args.learning_rate, args.num_train_epochs, args.per_device_train_batch_size) == (3e-5, 3, 8)
    assert args.fusion_learning_rate == 3e-5
    assert (args.adam_beta1, args.adam_beta2, args.weight_decay) == (0.8, 0.999, 3e-7)
    assert (str(args.lr_scheduler_type.value), args.warmup_steps, args.max_grad_norm) == ("cosine", 0.05, 1.0)


def test_only_what_stands_between_the_parts_is_trained(trainer, tmp_path):
    made = trainer(fusion_learning_rate=1e-3, weight_decay=0.1, switches={"source_fusion": "global_softmax"})
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "end_vector",
        "mapping.weight",
        "mapping.bias",
        "source_fusion.layer_logits",
        "source_fusion.temperature",
    }
    assert changed == trainable_names(made.model)
    names = {id(parameter): name for name, parameter in made.model.named_parameters()}
    groups = {
        names[id(p)]: (g["initial_lr"], g["weight_decay"]) for g in made.optimizer.param_groups for p in g["params"]
    }
    assert groups["source_fusion.layer_logits"] == groups["source_fusion.temperature"] == (1e-3, 0.0)
    assert groups["mapping.weight"] == (1e-2, 0.1)
    for name in ("training.png", "source_fusion.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_metrics_are_those_of_answers_one_by_one(trainer):
    made = trainer()
    metrics = made.evaluate()
    losses, right, whole = [], [], []
    for row in made.eval_dataset:
        inputs = made.data_collator([row])
        labels = inputs.pop("labels")
        with torch.no_grad():
            logits = made.model(**inputs).logits[:, :-1]
        kept = labels[:, 1:] != -100
        losses += torch.nn.functional.cross_entropy(logits[kept], labels[:, 1:][kept], reduction="none").tolist()
        hits = (logits.argmax(-1) == labels[:, 1:])[kept].tolist()
        right += hits
        whole.append(all(hits))
    loss = sum(losses) / len(losses)
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-4)
    assert metrics["eval_token_accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["eval_answer_accuracy"] == pytest.approx(sum(whole) / len(whole))


def test_smoothed_labels_are_those_that_the_logits_predict(trainer):
    made = trainer(label_smoothing_factor=0.1)
    batch = made.data_collator(list(made.eval_dataset))
    with torch.no_grad():
        logits = made.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        loss = made.compute_loss(made.model, dict(batch)).item()
    labels = batch["labels"][:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, label_smoothing=0.1)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_accumulated_small_batches_equal_the_big_one(trainer):
    runs = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        made = trainer(
            switches={"source_fusion": "global_softmax"},  # without dropout
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            warmup_steps=0,
            max_grad_norm=0.0,
        )
        # Answers of different lengths: a mean of the batches' means would be another loss.
        assert len({sum(label != -100 for label in row) for row in made.train_dataset["labels"]}) > 2
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        made.train()
        losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
        after = made.model.state_dict()
        runs.append((losses, {name: after[name] - before[name] for name in trainable_names(made.model)}))
    (losses, big), (small_losses, small) = runs
    assert small_losses == pytest.approx(losses, abs=2e-4)  # the Trainer logs rounded losses
    assert any(step.any() for step in big.values())
    for name, step in big.items():
        torch.testing.assert_close(small[name], step, rtol=1e-3, atol=1e-6)


def test_answers_are_learned(trainer):
    made = trainer(
        rows=4, max_steps=60, per_device_train_batch_size=4, learning_rate=3e-2, eval_steps=60, save_steps=60
    )
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert after["eval_loss"] < 0.5 * before["eval_loss"]
    assert after["eval_token_accuracy"] > 0.5 > before["eval_token_accuracy"]


@pytest.mark.parametrize("fusion", ["last", "token_softmax"])
def test_resumed_equals_undisturbed(trainer, fusion):
    whole = trainer("whole", switches={"source_fusion": fusion})
    whole.train()
    resumed = trainer("whole", switches={"source_fusion": fusion})
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert resumed.state.global_step == 4
    assert same_weights(whole.model, resumed.model)
    with pytest.raises(ValueError, match="learning_rate: 0.01 then, 0.5 now"):
        trainer("whole", learning_rate=0.5, switches={"source_fusion": fusion}).train(
            resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2"
        )


@pytest.mark.parametrize("frozen_dtype", [None, "bfloat16"])
def test_checkpoints_are_light(trainer, frozen_dtype, tmp_path):
    made = trainer(frozen_dtype=frozen_dtype, load_best_model_at_end=False)
    made.train()
    folder = tmp_path / "out" / "checkpoint-4"
    loaded, processor = load_light(folder)
    assert same_weights(made.model, loaded)
    assert trainable_names(loaded) == trainable_names(made.model) and not loaded.training
    assert (processor.source_lang, processor.repeat_source) == ("heb_Hebr", False)
    with pytest.raises(ValueError, match="trained adapters only"):
        LayerFusionForCausalLM.from_pretrained(folder)


def test_a_light_checkpoint_onto_another_base(composed_fusion, tmp_path):
    model, processor = composed_fusion(repeat_source=True)
    folder = save_light(model, processor, tmp_path / "light")
    base = save(model, processor, tmp_path / "base")
    loaded, loaded_processor = load_light(folder, base=base)
    assert same_weights(model, loaded) and loaded_processor.repeat_source
    other, _ = composed_fusion(source_fusion="last")
    with pytest.raises(ValueError, match="it has source_fusion 'last' instead of 'token_softmax'"):
        load_light(folder, base=save(other, processor, tmp_path / "other"))
    pins = json.loads((folder / PINS_NAME).read_text())
    assert pins["fingerprint"] == frozen_fingerprint(model)
    cast_frozen(model, torch.bfloat16)
    assert frozen_fingerprint(model) != pins["fingerprint"]
    (folder / PINS_NAME).write_text(json.dumps({**pins, "fingerprint": "sha256:0"}))
    with pytest.raises(ValueError, match="not those that .* was trained between"):
        load_light(folder)


def test_a_checkpoint_from_before_a_switch_was_there_is_gone_on_with(trainer, tmp_path):
    trainer().train()
    path = tmp_path / "out" / "checkpoint-2" / "training_settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("end_vector_std") == 0.0
    path.write_text(json.dumps(settings))
    trainer().train(resume_from_checkpoint=path.parent)
    with pytest.raises(ValueError, match="end_vector_std: 0.0 then, 1.0 now"):
        trainer(switches={"end_vector_std": 1.0}).train(resume_from_checkpoint=path.parent)


def test_wrong_arguments(trainer, tmp_path):
    made = trainer()
    arguments = {"model": made.model, "args": made.args, "processing_class": made.processing_class}
    with pytest.raises(TypeError, match="must be LayerFusionTrainingArguments, got TALLTrainingArguments"):
        LayerFusionTrainer(**{**arguments, "args": TALLTrainingArguments(output_dir=tmp_path)})
    with pytest.raises(TypeError, match="LayerFusionProcessor, got NoneType"):
        LayerFusionTrainer(**{**arguments, "processing_class": None})
    with pytest.raises(ValueError, match="leave out `data_collator`"):
        LayerFusionTrainer(**arguments, data_collator=made.data_collator)
    with pytest.raises(ValueError, match="`train_dataset` is empty"):
        LayerFusionTrainer(**arguments, train_dataset=made.train_dataset.select([]))
    with pytest.raises(ValueError, match="'loss', 'perplexity', 'answer_accuracy'"):
        trainer(metric_for_best_model="last_word_accuracy")
