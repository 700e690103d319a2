"""compose_layer_fusion: weights of the parts arrive bit for bit, whatever the encoder's family, and what does not fit is said."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from tall_hf import LayerFusionCollator, compose_layer_fusion
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM


TEXTS = ["דנה גרה בחיפה", "שלום"]


@pytest.mark.parametrize(
    ("family", "source_lang"),
    [("marian_he_en", None), ("m2m_100", "he"), ("nllb", "heb_Hebr"), ("mbart50", "he_IL")],
)
def test_parts_arrive_bit_for_bit_and_the_rest_starts_as_the_paper_says(part, family, source_lang):
    model, processor = compose_layer_fusion(
        part(family), part("llama"), source_fusion="global_softmax", source_lang=source_lang
    )
    encoder = AutoModelForSeq2SeqLM.from_pretrained(part(family)).get_encoder().state_dict()
    llm = AutoModelForCausalLM.from_pretrained(part("llama"))
    for mine, original in ((model.encoder.state_dict(), encoder), (model.llm.state_dict(), llm.state_dict())):
        assert mine.keys() == original.keys()
        assert all(torch.equal(mine[name], original[name]) for name in original)
    assert (model.end_vector == 0).all() and (model.mapping.bias == 0).all()
    assert model.mapping.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.source_fusion.layer_logits.tolist() == pytest.approx([3e-5, 3e-5])
    assert not model.training
    inputs = processor(text=TEXTS, prompt="Who is it", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        assert torch.isfinite(logits).all()
        # The prompt's end sees the source: other sources, other answers.
        assert (logits[0, -1] - logits[1, -1]).abs().max() > 1e-4
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= inputs["input_ids"].shape[1] + 3
    assert set(model.config.components) == {"encoder", "llm"}


def test_an_encoder_without_a_pooler(part, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(part("opt"))
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    original = XLMRobertaForMaskedLM(config).eval()
    original.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, processor = compose_layer_fusion(tmp_path, part("qwen2"), source_fusion="last")
    inputs = processor(text=["Dana lives"], return_tensors="pt")
    ids = inputs["source_input_ids"]
    with torch.no_grad():
        expected = model.mapping(original.roberta(ids).last_hidden_state)
        vectors, _ = model.encode_source(ids)
    torch.testing.assert_close(vectors[:, :-1], expected)
    assert not any("pooler" in name for name in model.state_dict())


def test_composed_saved_and_loaded_is_the_same(part, tmp_path):
    model, processor = compose_layer_fusion(part("nllb"), part("qwen2"), source_lang="heb_Hebr", dtype="bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = LayerFusionForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_adapters_stay_as_precise_as_they_were_trained(part, tmp_path):
    model, _ = compose_layer_fusion(part("nllb"), part("qwen2"), source_lang="heb_Hebr")
    for frozen in model.frozen_parts:
        frozen.to(torch.bfloat16)
    model.mapping.weight.data.normal_()
    model.save_pretrained(tmp_path)
    loaded = LayerFusionForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.mapping.weight, model.mapping.weight)


def test_a_language_goes_in_front_of_the_source(part):
    _, processor = compose_layer_fusion(part("nllb"), part("qwen2"), source_lang="heb_Hebr")
    tokenizer = processor.source_tokenizer
    hebrew, english = (
        processor(text=TEXTS[0], **lang)["source_input_ids"][0] for lang in ({}, {"source_lang": "eng_Latn"})
    )
    assert hebrew[0] == tokenizer.convert_tokens_to_ids("heb_Hebr")
    assert english[0] == tokenizer.convert_tokens_to_ids("eng_Latn")
    assert hebrew[1:] == english[1:]


def test_a_call_in_another_language_leaves_nothing_behind(part):
    _, processor = compose_layer_fusion(part("nllb"), part("qwen2"), source_lang="heb_Hebr")
    before = processor(text=TEXTS[0])["source_input_ids"]
    processor(text=TEXTS[0], source_lang="eng_Latn")
    assert processor(text=TEXTS[0])["source_input_ids"] == before


@pytest.mark.parametrize("family", ["m2m_100", "nllb", "mbart50"])
def test_what_wants_a_language_is_told_one(part, family):
    model, processor = compose_layer_fusion(part(family), part("qwen2"))  # each call is to name it
    with pytest.raises(ValueError, match="wants the code of the language it reads: pass `source_lang`"):
        processor(text=TEXTS[0])
    with pytest.raises(ValueError, match="wants the code of the language it reads"):
        model.classify(TEXTS[0], processor, ["yes", "no"])
    code = {"m2m_100": "he", "nllb": "heb_Hebr", "mbart50": "he_IL"}[family]
    assert processor(text=TEXTS[0], source_lang=code)["source_input_ids"]


def test_what_has_no_position_is_named(part):
    model, processor = compose_layer_fusion(
        part("marian_he_en"), part("gpt2"), source_fusion="last", max_source_length=None
    )
    limit = model.config.max_source_length
    assert processor.max_source_length == limit == model.config.encoder_config.max_position_embeddings
    inputs = processor(text=["דנה " * 200], prompt="Who", return_tensors="pt")
    assert inputs["source_input_ids"].shape[1] == limit
    with pytest.raises(ValueError, match=f"`source_input_ids` reaches {limit + 1} tokens"):
        model.encode_source(torch.full((1, limit + 1), 5))
    longest = model.config.max_llm_length
    assert longest == model.config.llm_config.max_position_embeddings
    inputs = processor(text=["דנה"], prompt="Who " * longest, return_tensors="pt")
    with pytest.raises(ValueError, match=r"`input_ids` reaches \d+ tokens, but there are positions for"):
        model(**inputs)
    # What is repeated is cut as the source is.
    processor.repeat_source, processor.max_source_length = True, 5
    short = processor(text=["the girl " * 50], prompt="Who")["input_ids"][0]
    assert len(short) < 5 + 1 + 5 + 10
    with pytest.raises(NotImplementedError, match="two frozen models"):
        model.resize_token_embeddings(10)


def test_transformers_trainer_trains_it(part, tmp_path):
    model, processor = compose_layer_fusion(part("nllb"), part("llama"), source_lang="heb_Hebr")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = processor(text=TEXTS * 4, prompt="It is", text_target=["Dana", "world"] * 4)
    dataset = Dataset.from_dict(dict(rows))
    args = TrainingArguments(
        output_dir=tmp_path,
        max_steps=30,
        per_device_train_batch_size=4,
        learning_rate=3e-2,
        use_cpu=True,
        report_to="none",
        logging_steps=5,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=args, train_dataset=dataset, data_collator=LayerFusionCollator(processor))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith(("encoder.", "llm.")) for name in changed)
    assert any(name.startswith("source_fusion.") for name in changed)


def test_wrong_arguments(part):
    with pytest.raises(TypeError, match="'source_bridge'.*source_fusion, mapping_type"):
        compose_layer_fusion(part("nllb"), part("qwen2"), source_bridge="gated")
    with pytest.raises(ValueError, match="'int8'"):
        compose_layer_fusion(part("nllb"), part("qwen2"), dtype="int8")
    with pytest.raises(ValueError, match="an encoder-decoder; the LLM must be"):
        compose_layer_fusion(part("nllb"), part("nllb"))
    with pytest.raises(ValueError, match="type 'llama', which is no encoder"):
        compose_layer_fusion(part("llama"), part("qwen2"))
    with pytest.raises(ValueError, match="does not know the language code 'heb'"):
        compose_layer_fusion(part("nllb"), part("qwen2"), source_lang="heb")
    with pytest.raises(ValueError, match="is of type 'qwen2', not a LayerFusionForCausalLM"):
        LayerFusionForCausalLM.from_pretrained(part("qwen2"))
    with pytest.raises(FileNotFoundError, match="no folder './nowhere'"):
        compose_layer_fusion("./nowhere", part("qwen2"))
