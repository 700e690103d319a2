"""save_pretrained and back: every weight, buffer and tie bit for bit, in one file or many, in each dtype."""

import json
import shutil
import struct

import parts
import pytest
import torch
from batches import batch, random_rows
from parts import stir
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from tall_hf import TALLConfig, TALLForCausalLM, TALLProcessor, compose


def assert_same_weights(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value, theirs[name]), name
    for (name, ours), (_, theirs) in zip(model.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name  # those that are not saved, too
    frozen = [{n for n, p in one.named_parameters() if not p.requires_grad} for one in (model, other)]
    assert frozen[0] == frozen[1]


@pytest.fixture
def saved(composed, tmp_path):
    def save(*args, **kwargs):
        model, processor = composed(*args)
        model.save_pretrained(tmp_path, **kwargs)
        processor.save_pretrained(tmp_path)
        return model, processor, tmp_path

    return save


@pytest.mark.parametrize("shard", [None, "20KB"])
def test_reload_is_bit_for_bit(saved, bridge, shard):
    model, processor, folder = saved(bridge, **({"max_shard_size": shard} if shard else {}))
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 2) == (folder / "model.safetensors.index.json").exists() == (shard is not None)
    loaded, info = TALLForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert_same_weights(model, loaded)
    assert not loaded.training
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_reload_of_each_translator_family_is_bit_for_bit(saved, translator):
    model, processor, folder = saved("gated", translator)
    loaded = TALLForCausalLM.from_pretrained(folder)
    assert_same_weights(model, loaded)
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_tied_head_positions_gate_and_bias_come_back(saved):
    model, _, folder = saved("gated")
    loaded = TALLForCausalLM.from_pretrained(folder)
    assert loaded.lm_head.weight is loaded.decoder.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert model.encoder.gate.item() != 0
    assert loaded.encoder.gate.item() == model.encoder.gate.item()
    assert torch.equal(loaded.encoder.embedding_std, model.encoder.embedding_std)
    assert torch.equal(loaded.final_logits_bias, model.final_logits_bias)
    for custom in ("source_decoder", "target_encoder"):
        ours, theirs = (getattr(one.encoder, custom).embed_positions.weight for one in (model, loaded))
        assert torch.equal(ours, theirs)
        assert theirs.std() > 0.5


def test_an_untied_head_comes_back_too(fresh, tmp_path):
    model, _ = fresh("none")
    model.config.tie_word_embeddings = model.config.hr_lr_config.tie_word_embeddings = False
    untied = TALLForCausalLM(model.config)
    with torch.no_grad():
        untied.lm_head.weight.normal_()
    untied.save_pretrained(tmp_path)
    loaded = TALLForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is not loaded.decoder.get_input_embeddings().weight
    assert_same_weights(untied, loaded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_bit_for_bit(part_folders, tmp_path, dtype):
    model, processor = compose(**part_folders(), source_bridge="gated", dtype=dtype)
    stir(model)
    assert {p.dtype for p in model.parameters()} == {dtype}
    model.save_pretrained(tmp_path)
    loaded = TALLForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(model, loaded)
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        logits = loaded(**inputs).logits
        assert logits.dtype == dtype
        assert torch.equal(logits, model(**inputs).logits)
    assert {p.dtype for p in TALLForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).parameters()} == {
        torch.float32
    }


def test_device_map_places_everything(saved):
    model, processor, folder = saved("gated")
    inputs = batch(random_rows(model, processor))
    for device_map in ({"": "cpu"}, "cpu", "auto"):
        loaded = TALLForCausalLM.from_pretrained(folder, device_map=device_map)
        assert_same_weights(model, loaded)
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_configuration_and_generation_settings_come_back(saved):
    model, processor, folder = saved("gated")
    config = TALLConfig.from_pretrained(folder)
    assert config.source_bridge == "gated"
    assert config.components == model.config.components
    assert config.components["llm"]["name_or_path"].endswith("qwen2-0")
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 0.7, 50, 0.95)
    loaded = TALLForCausalLM.from_pretrained(folder)
    original = AutoModelForSeq2SeqLM.from_pretrained(config.components["lr_hr"]["name_or_path"]).generation_config
    for one in (model, loaded):
        translator = one.encoder.translator.generation_config
        assert (translator.num_beams, translator.max_length) == (original.num_beams, original.max_length) == (2, 24)
        assert translator.bad_words_ids == original.bad_words_ids


def test_a_checkpoint_can_be_saved_and_loaded_again_and_again(saved, tmp_path):
    model, _, folder = saved("gated")
    for i in range(2):
        model = TALLForCausalLM.from_pretrained(folder)
        folder = tmp_path / str(i)
        model.save_pretrained(folder)
    assert_same_weights(model, TALLForCausalLM.from_pretrained(folder))


def weight_file(folder):
    return folder / "model.safetensors"


def test_a_missing_weight_file_is_named(saved):
    _, _, folder = saved("gated")
    weight_file(folder).unlink()
    with pytest.raises(OSError, match="model.safetensors"):
        TALLForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_truncated_weight_file_is_refused(saved, keep):
    _, _, folder = saved("gated")
    content = weight_file(folder).read_bytes()
    weight_file(folder).write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(OSError, match=f"{folder}.* corrupted or incomplete .*Download or save them again"):
        TALLForCausalLM.from_pretrained(folder)


def test_a_shard_that_is_missing_is_named(saved):
    _, _, folder = saved("gated", max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(OSError, match=shard.name):
        TALLForCausalLM.from_pretrained(folder)


def test_pickled_weights_are_refused(saved):
    model, _, folder = saved("gated")
    weight_file(folder).unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        TALLForCausalLM.from_pretrained(folder)


def test_a_checkpoint_of_adapters_alone_says_how_to_load_it(saved):
    _, _, folder = saved("gated")
    config = TALLConfig.from_pretrained(folder)
    config.trainable_only = True
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"trained adapters only.*`tall_hf.load_light\(folder\)`"):
        TALLForCausalLM.from_pretrained(folder)


def test_saved_processor_makes_the_same_inputs(saved, translator):
    _, processor, folder = saved("gated", translator)
    loaded = TALLProcessor.from_pretrained(folder)
    for attribute in ("decoder_start_token_ids", "source_lang", "pivot_lang", "reserved_target_length"):
        assert getattr(loaded, attribute) == getattr(processor, attribute)
    target = 72 if translator == "marian" else 64
    for attribute, limit in zip(("source", "translation", "target"), (64, 64, target), strict=True):
        name = f"max_{attribute}_length"
        assert getattr(loaded, name) == getattr(processor, name) == limit
    ours, theirs = (
        one(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt") for one in (processor, loaded)
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_safetensors_header_lists_the_tied_head_once(saved):
    _, _, folder = saved("gated")
    content = weight_file(folder).read_bytes()
    names = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert "decoder.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_a_checkpoint_with_lora_that_is_not_merged_is_refused():
    config = TALLConfig(lora={"r": 4})
    with pytest.raises(ValueError, match=r"load_lora\(folder\)"), torch.device("meta"):
        TALLForCausalLM(config)


def test_adapters_are_not_rounded_to_the_frozen_parts_dtype(fresh, bridge, tmp_path):
    model, _ = fresh(bridge)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for part in (model.encoder.translator, model.encoder.llm, model.decoder, model.lm_head):
        part.to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = TALLForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, weight in model.state_dict().items():
        if name in trained:
            assert torch.equal(loaded[name], weight), name


@pytest.mark.parametrize("use_safetensors", [False, None])
def test_no_way_of_asking_reads_pickled_weights(saved, use_safetensors):
    _, _, folder = saved("gated")
    with pytest.raises(ValueError, match="read from safetensors only"):
        TALLForCausalLM.from_pretrained(folder, use_safetensors=use_safetensors)


def test_a_data_parallel_replica_has_no_parameters_and_computes(fresh, bridge):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        expected = model(**inputs).logits
        decoder = model.decoder
        # What nn.DataParallel's replicas look like to code that asks for parameters.
        decoder.parameters = lambda: iter(())
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("name", ["processor_config.json", "source_tokenizer", "llm_tokenizer"])
def test_a_processor_that_is_not_whole_names_what_is_missing(saved, name):
    _, _, folder = saved("gated")
    part = folder / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(OSError, match=f"{name} is missing"):
        TALLProcessor.from_pretrained(folder)


def test_a_switch_given_at_loading_is_checked(saved):
    _, _, folder = saved("gated")
    with pytest.raises(ValueError, match="`source_bridge` must be one of .*'foo'"):
        TALLForCausalLM.from_pretrained(folder, source_bridge="foo")
