"""compose: weights that arrive bit for bit, revisions, dtypes, warm starts, language codes, and parts that do not fit."""

import json
import shutil

import parts
import pytest
import torch
from batches import batch, random_rows
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tall_hf import TALLForCausalLM, TALLProcessor, compose
from tall_hf.components import language_id
from tall_hf.loading import Component


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def assert_equal_weights(module, original):
    ours, theirs = module.state_dict(), original.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_weights_of_the_parts_arrive_bit_for_bit(composed, part_folders, bridge, translator):
    model, _ = composed(bridge, translator)
    folders = part_folders(translator)
    lr_hr, hr_lr = (AutoModelForSeq2SeqLM.from_pretrained(folders[role]) for role in ("lr_hr", "hr_lr"))
    assert_equal_weights(model.encoder.translator, lr_hr)
    assert_equal_weights(model.encoder.llm, AutoModel.from_pretrained(folders["llm"]))
    assert_equal_weights(model.decoder, hr_lr.get_decoder())
    assert_equal_weights(model.lm_head, hr_lr.get_output_embeddings())
    bias = getattr(hr_lr, "final_logits_bias", torch.zeros(1, hr_lr.config.vocab_size))
    assert torch.equal(model.final_logits_bias, bias)
    # The two translators of a family differ, so that one in place of the other would show.
    assert not torch.equal(
        model.decoder.layers[0].fc1.weight[:1, :1], lr_hr.get_decoder().layers[0].fc1.weight[:1, :1]
    )
    assert not model.training


def test_the_llm_can_be_left_out(part_folders, llm, tmp_path):
    folders = part_folders(llm=llm)
    model, processor = compose(**folders, source_bridge="gated", leave_out_llm=True)
    whole = AutoModel.from_pretrained(folders["llm"])
    assert model.config.llm_config.num_hidden_layers == 0 < whole.config.num_hidden_layers
    weights, kept = whole.state_dict(), model.encoder.llm.state_dict()
    assert torch.equal(model.encoder.llm.get_input_embeddings().weight, whole.get_input_embeddings().weight)
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
    assert {name for name in weights if name not in kept} == {
        name for name in weights if ".0." in name or ".1." in name
    }
    # No token knows of another.
    embed = model.encoder.llm.get_input_embeddings()
    first, second = (
        model.encoder.llm(inputs_embeds=embed(torch.tensor([[token, 9]]))).last_hidden_state for token in (5, 7)
    )
    assert torch.equal(first[:, 1], second[:, 1]) and not torch.equal(first[:, 0], second[:, 0])
    model.save_pretrained(tmp_path)
    again = TALLForCausalLM.from_pretrained(tmp_path)
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        assert torch.equal(again(**inputs).logits, logits)
    assert torch.isfinite(logits).all()


def test_every_llm_family_composes_generates_and_reloads(composed, llm, tmp_path):
    model, processor = composed("gated", llm=llm)
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, again = TALLForCausalLM.from_pretrained(tmp_path), TALLProcessor.from_pretrained(tmp_path)
    same = again(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    assert all(torch.equal(same[name], value) for name, value in inputs.items())
    with torch.no_grad():
        assert torch.equal(loaded(**same).logits, model(**inputs).logits)
    assert torch.equal(loaded.generate(**same, do_sample=False, max_new_tokens=4), generated)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    ours, theirs = (dict(one.next_words(parts.SENTENCES[0], processor, top_k=2)[0]) for one in (model, loaded))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_adapters_start_from_noise_and_from_the_seed(part_folders):
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(compose(**part_folders())[0])
    name = "encoder.source_alignment.up_proj.weight"
    first, same, other = (model.state_dict()[name] for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_switches_reach_the_configuration(part_folders):
    model, _ = compose(**part_folders(), source_bridge="concat", alignment_hidden_size=20, alignment_dropout=0.3)
    assert model.config.source_bridge == "concat"
    assert model.encoder.target_alignment.up_proj.out_features == 20
    assert model.encoder.target_alignment.dropout.p == 0.3


def test_an_unknown_switch_is_named(part_folders):
    with pytest.raises((TypeError, ValueError), match="source_brigde"):
        compose(**part_folders(), source_brigde="gated")
    with pytest.raises(
        ValueError, match="`source_bridge` must be one of .*'marian', 'gated', 'concat', 'none'.*'gate'"
    ):
        compose(**part_folders(), source_bridge="gate")


def test_heads_that_do_not_divide_say_which_would(part_folders):
    with pytest.raises(ValueError, match="not divisible by 5 .*`bridge_attention_heads=4`"):
        compose(**part_folders(), bridge_attention_heads=5)
    model, _ = compose(**part_folders(), bridge_attention_heads=8)
    assert model.encoder.source_decoder.layers[0].encoder_attn.num_heads == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "bfloat16", "float16"])
def test_parts_of_different_dtypes_become_one(part, part_folders, tmp_path, dtype):
    mixed = {}
    for role, auto_class, saved in (
        ("lr_hr", AutoModelForSeq2SeqLM, torch.float16),
        ("llm", AutoModelForCausalLM, torch.bfloat16),
        ("hr_lr", AutoModelForSeq2SeqLM, torch.float32),
    ):
        mixed[role] = tmp_path / role
        shutil.copytree(part_folders()[role], mixed[role])
        auto_class.from_pretrained(mixed[role]).to(saved).save_pretrained(mixed[role])
    model, processor = compose(**mixed, source_bridge="gated", dtype=dtype)
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} <= {expected, torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    with torch.no_grad():
        assert model(**batch(random_rows(model, processor))).logits.dtype == expected
    original = AutoModelForSeq2SeqLM.from_pretrained(mixed["lr_hr"], dtype=expected)
    assert_equal_weights(model.encoder.translator, original)


@pytest.mark.parametrize("dtype", ["float33", "int8", torch.int64, 32])
def test_a_dtype_must_be_a_floating_point_one(part_folders, dtype):
    with pytest.raises(ValueError, match=f"`dtype` must be a floating-point .*{dtype}"):
        compose(**part_folders(), dtype=dtype)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}])
def test_device_map(composed, part_folders, device_map):
    torch.manual_seed(2)
    model, processor = compose(**part_folders(), source_bridge="gated", device_map=device_map)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, parameter in composed("gated")[0].named_parameters() if not parameter.requires_grad
    }
    with torch.no_grad():
        assert model(**batch(random_rows(model, processor))).logits.isfinite().all()


def test_warm_start_copies_the_translators_layers(part, part_folders, tmp_path):
    """Custom encoder 2 always fits; custom decoder 1 only where the LLM is as wide as the LR→HR translator."""
    torch.manual_seed(5)
    model, tokenizer = parts.llm("qwen2", width=16)
    narrow = tmp_path / "narrow"
    model.save_pretrained(narrow)
    tokenizer.save_pretrained(narrow)
    for llm, fits in ((narrow, True), (part("qwen2"), False)):
        folders = {**part_folders(), "llm": llm}
        warm, processor = compose(**folders, source_bridge="gated", warm_start=True)
        lr_hr, hr_lr = (AutoModelForSeq2SeqLM.from_pretrained(folders[role]) for role in ("lr_hr", "hr_lr"))
        for custom, original, copied in (
            (warm.encoder.target_encoder, hr_lr.get_encoder(), True),
            (warm.encoder.source_decoder, lr_hr.get_decoder(), fits),
        ):
            theirs = original.state_dict()
            same = [
                torch.equal(value, theirs[name]) for name, value in custom.state_dict().items() if "layers" in name
            ]
            assert same
            assert all(same) if copied else not any(same)
        assert all(parameter.requires_grad for parameter in warm.encoder.target_encoder.layers.parameters())
        with torch.no_grad():
            assert warm(**batch(random_rows(warm, processor))).logits.isfinite().all()


def test_warm_start_needs_marian_translators(part_folders):
    with pytest.raises(ValueError, match="`warm_start` needs two Marian translators"):
        compose(**part_folders("m2m_100"), warm_start=True)


# Where the parts come from


@pytest.fixture
def hub_cache(part_folders, tmp_path, monkeypatch):
    """The parts in a cache as the Hub's client lays it out: `org/<role>` at one commit, on `main` and a tag `v1`."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    for role in ("lr_hr", "llm", "hr_lr"):
        repo = cache / f"models--org--{role}"
        shutil.copytree(part_folders()[role], repo / "snapshots" / COMMIT)
        (repo / "refs").mkdir()
        for reference in ("main", "v1"):
            (repo / "refs" / reference).write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download.constants, "HF_HUB_CACHE", str(cache), raising=False)
    return cache


@pytest.mark.parametrize("revision", ["", "@main", "@v1", f"@{COMMIT}"])
def test_hub_ids_are_pinned_to_their_commit(hub_cache, revision):
    specs = {role: f"org/{role}{revision}" for role in ("lr_hr", "llm", "hr_lr")}
    model, processor = compose(**specs, source_bridge="gated")
    assert model.config.components == {
        role: {"name_or_path": f"org/{role}", "revision": COMMIT} for role in ("lr_hr", "llm", "hr_lr")
    }
    assert json.loads(model.config.to_json_string())["components"] == model.config.components
    assert model.translate(parts.SENTENCES[:1], processor)


def test_a_revision_that_is_not_there(hub_cache):
    with pytest.raises(OSError):
        Component.resolve("org/llm@v2")
    with pytest.raises(OSError):
        Component.resolve("org/nothing")


@pytest.mark.parametrize("spec", ["outputs/mistyped", "nowhere", "org/llm@v2"])
def test_without_the_hub_what_is_not_there_is_named(hub_cache, spec, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=f"There is no folder '{spec}', and as a Hub id it is not in the cache"
    ):
        Component.resolve(spec)


def test_folders_have_no_revision(part, composed):
    folder = part("qwen2")
    assert Component.resolve(folder) == Component.resolve(str(folder)) == Component(str(folder), None)
    assert composed("gated")[0].config.components["llm"] == {"name_or_path": str(folder), "revision": None}


@pytest.mark.parametrize("spec", ["./nowhere", "/no/such/folder", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(spec):
    with pytest.raises(FileNotFoundError, match=f"no folder '{spec}'; give a folder that exists or a Hub id"):
        Component.resolve(spec)


def test_an_empty_name_is_refused(part_folders):
    with pytest.raises(ValueError, match="name is empty; give a folder or a Hub id"):
        compose(**{**part_folders(), "llm": ""})


# Languages


@pytest.mark.parametrize("family", ["m2m_100", "nllb", "mbart50"])
def test_languages_must_be_given_and_known(part_folders, family):
    folders = part_folders(family)
    source, pivot = folders.pop("source_lang"), folders.pop("pivot_lang")
    with pytest.raises(ValueError, match="pass `source_lang` and `pivot_lang`"):
        compose(**folders)
    with pytest.raises(ValueError, match="pass `source_lang`"):
        compose(**folders, pivot_lang=pivot)
    with pytest.raises(ValueError, match="pass `pivot_lang`"):
        compose(**folders, source_lang=source)
    for codes in ({"source_lang": source, "pivot_lang": "xx_Nope"}, {"source_lang": "xx_Nope", "pivot_lang": pivot}):
        with pytest.raises(ValueError, match="does not know the language code 'xx_Nope'.*'heb_Hebr' for NLLB"):
            compose(**folders, **codes)


@pytest.mark.parametrize("family", ["m2m_100", "nllb", "mbart50"])
def test_the_language_that_is_read_must_be_given_and_known_where_another_family_writes_it(part_folders, family):
    folders = {**part_folders(family), "hr_lr": part_folders()["hr_lr"]}
    source = folders.pop("source_lang")
    with pytest.raises(ValueError, match="LR→HR translator .*: pass `source_lang`"):
        compose(**folders)
    with pytest.raises(ValueError, match="does not know the language code 'xx_Nope'"):
        compose(**folders, source_lang="xx_Nope")
    _, processor = compose(**folders, source_lang=source)
    ids = processor.encode_source("דנה גרה")["input_ids"][0]
    assert language_id(processor.source_tokenizer, source) in ids
    assert processor.decoder_start_token_ids == [processor.tokenizer.pad_token_id]


@pytest.mark.parametrize("family", ["m2m_100", "nllb", "mbart50"])
def test_the_decoder_starts_with_the_source_language(composed, part_folders, family):
    model, processor = composed("gated", family)
    tokenizer = AutoTokenizer.from_pretrained(part_folders(family)["hr_lr"])
    language = part_folders(family)["source_lang"]
    index = tokenizer.get_lang_id(language) if family == "m2m_100" else tokenizer.convert_tokens_to_ids(language)
    assert processor.decoder_start_token_ids == [2, index]
    inputs = processor(text=parts.SENTENCES[:1], translations=parts.TRANSLATIONS[:1], return_tensors="pt")
    assert inputs["decoder_input_ids"][0, :2].tolist() == [2, index]
    assert model.generate(**inputs, max_new_tokens=2)[0, :2].tolist() == [2, index]


def test_vocabularies_of_frozen_parts_are_not_resized(composed):
    with pytest.raises(NotImplementedError, match="three frozen models, which cannot be resized"):
        composed()[0].resize_token_embeddings(10)
