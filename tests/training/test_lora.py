"""LoRA on a TALL: what trains, that it starts at nothing, and that it saves, merges and reloads to the same predictions."""

import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import parts
import pytest
import torch
from batches import batch, random_rows
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from tall_hf import LastTokenCollator, TALLForCausalLM, TALLTrainer, TALLTrainingArguments, compose
from tall_hf.layer_fusion import compose_layer_fusion
from tall_hf.training.lora import add_lora, load_lora, lora_rank_for, merge_lora
from tall_hf.training.run import TALLRun, TALLRunSettings
from tall_hf.training.unfreezing import unfreeze


CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def logits_of(model, processor):
    model.eval()
    with torch.no_grad():
        return model(**batch(random_rows(model, processor))).logits


def stir_lora(model):
    """Move LoRA off its start, at which it changes nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    return model


def training_rows(processor):
    targets = [f"{text} היום" for text in parts.SENTENCES]
    encoded = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, text_target=targets)
    return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]


def trainer_of(model, processor, folder, steps, light=False, **own_settings):
    """Plain Trainer, whose checkpoints are whole, or TALLTrainer with light ones."""
    trainer, arguments = (TALLTrainer, TALLTrainingArguments) if light else (Trainer, TrainingArguments)
    own = {"processing_class": processor} if light else {"data_collator": LastTokenCollator(processor)}
    settings = {"allow_changed_settings": True, "eval_strategy": "no"} if light else {}
    arguments = arguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        lr_scheduler_type="constant",
        **settings,
        **own_settings,
    )
    return trainer(model=model, args=arguments, train_dataset=training_rows(processor), **own)


@pytest.mark.parametrize("decoder", [False, True])
def test_adapters_and_lora_train_and_nothing_else(fresh, llm, decoder):
    model, processor = fresh("gated", "marian", llm)
    adapters, before = trainable(model), logits_of(model, processor)
    frozen = {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert add_lora(model, r=3, decoder=decoder) is model
    added = trainable(model) - adapters
    assert adapters < trainable(model)
    assert all(".lora_A." in name or ".lora_B." in name for name in added)
    assert any(name.startswith("encoder.llm.") for name in added)
    assert any(name.startswith("decoder.") for name in added) == decoder
    assert not any(name.startswith("encoder.translator.") for name in added)
    assert torch.equal(logits_of(model, processor), before)

    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    inputs = batch(random_rows(model, processor), sides=("right", "right", "right"))
    inputs["labels"] = inputs["decoder_input_ids"]
    start = {name: dict(model.named_parameters())[name].clone() for name in trainable(model)}
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    after = dict(model.named_parameters())
    assert all(not torch.equal(after[name], value) for name, value in start.items() if name in added)
    for name, value in frozen.items():
        name = name if name in after else ".base_layer.".join(name.rsplit(".", 1))
        assert torch.equal(after[name], value), name


def test_lora_has_a_rate_of_its_own(fresh, tmp_path):
    model, processor = fresh("gated")
    adapters = trainable(model)
    add_lora(model, r=2)
    made = trainer_of(model, processor, tmp_path, steps=1, light=True, lora_learning_rate=1e-3)
    made.create_optimizer()
    rates = {id(parameter): group["lr"] for group in made.optimizer.param_groups for parameter in group["params"]}
    rates = {name: rates[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    assert {rates[name] for name in adapters} == {1e-2}
    assert {rates[name] for name in trainable(model) - adapters} == {1e-3}


def test_merged_predicts_what_unmerged_does(fresh, llm):
    model, processor = fresh("gated", "marian", llm)
    names, before = list(model.state_dict()), logits_of(model, processor)
    config = model.config.to_dict()
    stir_lora(add_lora(model, r=3, alpha=3, decoder=True))
    unmerged = logits_of(model, processor)
    assert not torch.allclose(unmerged, before, atol=1e-2)
    assert merge_lora(model) is model
    torch.testing.assert_close(logits_of(model, processor), unmerged, **CLOSE)
    assert list(model.state_dict()) == names
    for role in ("llm", "hr_lr"):  # no longer what is found under their names
        config["components"][role]["merged_lora"] = {"r": 3, "alpha": 3}
    assert model.config.to_dict() == config
    add_lora(model)  # and it can begin anew


def test_lora_changes_the_bridges_too(fresh, bridge):
    model, processor = fresh(bridge)
    stir_lora(add_lora(model))
    model.train()
    inputs = batch(random_rows(model, processor), sides=("right", "right", "right"))
    model(**inputs, labels=inputs["decoder_input_ids"]).loss.backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if ".lora_" in name)


@pytest.mark.parametrize("decoder", [False, True])
def test_unmerged_saves_whole_and_reloads_bit_for_bit(fresh, tmp_path, decoder):
    model, processor = fresh("gated")
    stir_lora(add_lora(model, r=3, alpha=5, dropout=0.1, target_modules=["q_proj", "down_proj"], decoder=decoder))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    torch.manual_seed(7)
    loaded = load_lora(tmp_path)
    assert loaded.config.lora == model.config.lora
    assert trainable(loaded) == trainable(model)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert torch.equal(logits_of(loaded, processor), logits_of(model, processor))
    assert loaded.generation_config.temperature == model.generation_config.temperature


@pytest.mark.parametrize("light", [False, True])
def test_trainer_checkpoint_resumes_to_the_same_weights(fresh, tmp_path, light):
    """Four steps at once equal two, a checkpoint, and two more of a process that adds LoRA and resumes."""

    def started():
        model, processor = fresh("gated")
        torch.manual_seed(3)
        return add_lora(model, r=3, dropout=0.2), processor

    whole = trainer_of(*started(), tmp_path / "whole", 4, light)
    whole.train()
    first = trainer_of(*started(), tmp_path / "halves", 2, light)
    first.train()
    model, processor = fresh("gated")
    torch.manual_seed(99)
    second = trainer_of(add_lora(model, r=3, dropout=0.2), processor, tmp_path / "halves", 4, light)
    second.train(resume_from_checkpoint=True)
    expected, got = whole.model.state_dict(), second.model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    if not light:
        loaded = load_lora(tmp_path / "halves" / "checkpoint-4")
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in expected.items())


FRESH = """
import json, sys
sys.modules["tall_hf"] = sys.modules["peft"] = None  # neither can be imported
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
inputs = {name: torch.tensor(ids) for name, ids in json.load(sys.stdin).items()}
with torch.no_grad():
    print(json.dumps(model(**inputs).logits.double().tolist()))
"""


def test_trained_merged_and_saved_predicts_the_same_without_this_package_and_peft(fresh, tmp_path):
    model, processor = fresh("gated")
    add_lora(model, r=3, decoder=True)
    trainer_of(model, processor, tmp_path / "run", 2).train()
    assert all(parameter.any() for name, parameter in model.named_parameters() if ".lora_B." in name)
    trained = logits_of(model, processor)
    merge_lora(model).save_pretrained(tmp_path / "merged")
    inputs = batch(random_rows(model, processor))
    done = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(tmp_path / "merged")],
        input=json.dumps({name: ids.tolist() for name, ids in inputs.items()}),
        env={"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = torch.tensor(json.loads(done.stdout.splitlines()[-1]), dtype=torch.float64)
    torch.testing.assert_close(answer, trained.double(), **CLOSE)
    reloaded = TALLForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits_of(reloaded, processor), logits_of(model, processor))


def test_dropout_is_on_in_training_only(fresh):
    model, processor = fresh("none")
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        for module in model.encoder.target_encoder.modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.encoder.target_alignment.dropout.p = 0.0
    stir_lora(add_lora(model, dropout=0.5))
    copied = copy.deepcopy(model)
    inputs = batch(random_rows(model, processor))
    for one in (model, copied):
        one.train()
        assert not one.encoder.llm.training
        first, second = (one(**inputs).logits for _ in range(2))
        assert not torch.allclose(first, second, atol=1e-3)
        one.eval()
        first, second = (one(**inputs).logits for _ in range(2))
        assert torch.equal(first, second)
    model.train()  # a copy follows its own adapters, not the original's
    assert torch.equal(copied(**inputs).logits, first)


def test_half_precision_parts_get_lora_in_the_adapters_precision(part_folders):
    model, processor = compose(**part_folders(), source_bridge="gated", dtype=torch.bfloat16)
    for name in ("source_alignment", "source_decoder", "target_alignment", "target_encoder"):
        getattr(model.encoder, name).float()
    add_lora(model)
    assert {p.dtype for name, p in model.named_parameters() if ".lora_" in name} == {torch.float32}
    assert {p.dtype for name, p in model.encoder.llm.named_parameters() if ".lora_" not in name} == {torch.bfloat16}
    states = model.encoder.llm(input_ids=torch.tensor([[5, 6]])).last_hidden_state
    assert states.dtype == torch.bfloat16


def test_parameter_table_counts_lora_where_it_is(fresh):
    model, _ = fresh("gated")
    before = {name: counts for name, *counts in model.parameter_table()}
    add_lora(model, r=3, decoder=True)
    after = {name: counts for name, *counts in model.parameter_table()}
    added = {
        row: sum(p.numel() for name, p in part.named_parameters() if ".lora_" in name)
        for row, part in (("LLM body", model.encoder.llm), ("HR→LR decoder", model.decoder))
    }
    added["total"] = sum(added.values())
    for name, (total, paper, requires_grad) in before.items():
        more = added.get(name, 0)
        assert after[name] == [total + more, paper, requires_grad + more], name


@pytest.mark.parametrize("llm", ["qwen2", "gpt2", "opt", "bloom"])
def test_rank_for_a_number_of_parameters(part, fresh, llm):
    alone = AutoModelForCausalLM.from_pretrained(part(llm))
    names = list(alone.state_dict())
    model, _ = fresh("none", "marian", llm)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    add_lora(model, r=5)
    wanted = sum(p.numel() for p in model.parameters() if p.requires_grad) - adapters
    assert lora_rank_for(alone, wanted) == lora_rank_for(alone, wanted + 1) == 5
    assert lora_rank_for(alone, 1) == 1
    assert list(alone.state_dict()) == names


def test_bad_input(fresh, tmp_path, monkeypatch):
    model, _ = fresh("gated")
    for settings in ({"r": 0}, {"alpha": 0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="LoRA needs r of at least 1"):
            add_lora(model, **settings)
    with pytest.raises(ValueError, match="nonsense"):
        add_lora(model, target_modules=["nonsense"])
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merge_lora(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no LoRA that is not merged"):
        load_lora(tmp_path)
    add_lora(model)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(model)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'tall-hf\[train\]'"):
        merge_lora(model)


def test_a_part_of_another_kind_of_model_gets_none(part):
    model, _ = compose_layer_fusion(part("marian_he_en"), part("llama"))
    with pytest.raises(ValueError, match="is for a TALL, got a LayerFusionForCausalLM"):
        add_lora(model)
    with pytest.raises(ValueError, match="of a TALL are unfrozen, got a LayerFusionForCausalLM"):
        unfreeze(model, ["llm"])


def test_every_setting_of_a_training_reaches_loras_layers(fresh):
    settings = {"lora_r": 2, "lora_alpha": 6.0, "lora_dropout": 0.3, "lora_target_modules": ["q_proj"]}
    for decoder in (False, True):
        model, _ = fresh("gated")
        run = TALLRunSettings("m", "d", **settings, lora_decoder=decoder)
        TALLRun.add_trained_parts(SimpleNamespace(settings=run), model)
        layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
        inside = {name: layer for name, layer in layers.items() if name.startswith("encoder.llm.")}
        assert inside and all(name.endswith(".q_proj") for name in inside)
        assert any(name.startswith("decoder.") for name in layers) is decoder
        for layer in layers.values():
            assert (layer.r["default"], layer.scaling["default"], layer.lora_dropout["default"].p) == (2, 3.0, 0.3)


def test_a_checkpoint_without_some_of_its_lora_is_refused(fresh, tmp_path):
    model, _ = fresh("gated")
    add_lora(model)
    state = model.state_dict()
    dropped = next(name for name in state if ".lora_B." in name)
    model.save_pretrained(tmp_path, state_dict={name: value for name, value in state.items() if name != dropped})
    with pytest.raises(ValueError, match=f"1 weights are missing and 0 are not known, such as {dropped}"):
        load_lora(tmp_path)
