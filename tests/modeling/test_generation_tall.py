"""generate: cached equals uncached, the encoder runs once, streaming; translate equals the original translator's own."""

import parts
import pytest
import torch
from batches import batch, random_rows
from parts import TRANSLATORS
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig


VARIED = {"no_repeat_ngram_size": 1, "max_new_tokens": 8}
STRATEGIES = {
    "greedy": {"do_sample": False, **VARIED},
    "beam": {"do_sample": False, "num_beams": 4, **VARIED},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.95, "max_new_tokens": 8},
    "beam sampling": {"do_sample": True, "num_beams": 3, "max_new_tokens": 8},
    "several sequences": {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 8},
}


@pytest.fixture
def calls(monkeypatch):
    """`calls(module)` counts the calls of its forward from now on."""

    def count(module):
        seen = []
        forward = module.forward
        monkeypatch.setattr(module, "forward", lambda *args, **kwargs: seen.append(1) or forward(*args, **kwargs))
        return seen

    return count


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cached_equals_uncached(composed, bridge, strategy):
    model, processor = composed(bridge)
    inputs = batch(random_rows(model, processor))
    outputs = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        outputs.append(model.generate(**inputs, use_cache=use_cache, **STRATEGIES[strategy]))
    assert torch.equal(*outputs)
    assert len({tuple(row) for row in outputs[0].tolist()}) >= 4


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_cached_equals_uncached_in_each_translator_family(composed, translator, strategy):
    model, processor = composed("gated", translator)
    inputs = batch(random_rows(model, processor))
    cached, uncached = (model.generate(**inputs, use_cache=use, **STRATEGIES[strategy]) for use in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_static_cache_gives_the_same_tokens(composed, translator, strategy, masked):
    model, processor = composed("gated", translator)
    inputs = batch(random_rows(model, processor))
    if not masked:
        inputs = {name: value[:1] for name, value in inputs.items()}
        kept = int(inputs.pop("decoder_attention_mask").sum())
        inputs["decoder_input_ids"] = inputs["decoder_input_ids"][:, -kept:]
    dynamic, static = (
        model.generate(**inputs, cache_implementation=name, **STRATEGIES[strategy]) for name in (None, "static")
    )
    assert torch.equal(static, dynamic)


def test_cached_logits_equal_those_of_one_forward(composed, translator):
    model, processor = composed("gated", translator)
    inputs = batch(random_rows(model, processor))
    output = model.generate(**inputs, output_logits=True, return_dict_in_generate=True, **STRATEGIES["greedy"])
    steps = torch.stack(output.logits, dim=1)
    mask = torch.cat([inputs["decoder_attention_mask"], torch.ones_like(output.sequences[:, -8:])], dim=1)
    inputs |= {"decoder_input_ids": output.sequences, "decoder_attention_mask": mask}
    with torch.no_grad():
        whole = model(**inputs).logits[:, -9:-1]
    torch.testing.assert_close(steps, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_encoder_and_the_llm_run_once(fresh, calls, strategy):
    model, processor = fresh("gated")
    encoder, llm, decoder = calls(model.encoder), calls(model.encoder.llm), calls(model.decoder)
    model.generate(**batch(random_rows(model, processor)), **STRATEGIES[strategy])
    assert (len(encoder), len(llm)) == (1, 1)
    assert len(decoder) == 8


def test_greedy_equals_an_argmax_loop(composed, bridge):
    model, processor = composed(bridge)
    inputs = batch(random_rows(model, processor))
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=5)
    for _ in range(5):
        with torch.no_grad():
            chosen = model(**inputs).logits[:, -1].argmax(dim=-1, keepdim=True)
        inputs["decoder_input_ids"] = torch.cat([inputs["decoder_input_ids"], chosen], dim=1)
        mask = inputs["decoder_attention_mask"]
        inputs["decoder_attention_mask"] = torch.cat([mask, torch.ones_like(chosen)], dim=1)
    # A padding token stands in what is generated only behind an end.
    assert torch.equal(generated, inputs["decoder_input_ids"][:, : generated.shape[1]])


def test_streaming(composed):
    class Streamer:
        def __init__(self):
            self.tokens, self.ended = [], False

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            self.ended = True

    model, processor = composed("gated")
    inputs = batch(random_rows(model, processor)[:1])
    streamer = Streamer()
    output = model.generate(**inputs, streamer=streamer, **STRATEGIES["greedy"])
    assert streamer.ended
    assert streamer.tokens == output[0].tolist()


def test_generation_defaults_are_the_papers(composed):
    model, processor = composed("gated")
    settings = model.generation_config
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 0.7, 50, 0.95)
    assert settings.max_new_tokens == 10
    inputs = batch(random_rows(model, processor))
    torch.manual_seed(1)
    default = model.generate(**inputs)
    torch.manual_seed(1)
    given = model.generate(
        **inputs,
        generation_config=GenerationConfig(
            **STRATEGIES["sampling"] | {"max_new_tokens": 10},
            eos_token_id=settings.eos_token_id,
            pad_token_id=settings.pad_token_id,
            bad_words_ids=settings.bad_words_ids,
        ),
    )
    assert torch.equal(default, given)
    torch.manual_seed(2)
    assert not torch.equal(default, model.generate(**inputs))


def test_the_padding_token_is_never_written(composed):
    """Marian's own settings forbid it, since it is the start token too."""
    model, processor = composed("gated")
    pad = model.generation_config.pad_token_id
    eos = model.generation_config.eos_token_id
    inputs = batch(random_rows(model, processor))
    for seed in range(5):
        torch.manual_seed(seed)
        new = model.generate(**inputs, do_sample=True, temperature=3.0, top_k=0, top_p=1.0, max_new_tokens=10)
        for row in new[:, inputs["decoder_input_ids"].shape[1] :].tolist():
            written = row[: row.index(eos)] if eos in row else row
            assert pad not in written


def test_translate_equals_the_original_translators_generate(composed, part_folders, translator):
    model, processor = composed("gated", translator)
    folders = part_folders(translator)
    original = AutoModelForSeq2SeqLM.from_pretrained(folders["lr_hr"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders["lr_hr"])
    language = {}
    if "source_lang" in folders:
        tokenizer.src_lang = folders["source_lang"]
        pivot = folders["pivot_lang"]
        known = getattr(tokenizer, "lang_code_to_id", None) or {}
        index = tokenizer.get_lang_id(pivot) if translator == "m2m_100" else tokenizer.convert_tokens_to_ids(pivot)
        assert known.get(pivot, index) == index != tokenizer.unk_token_id
        language["forced_bos_token_id"] = index
    inputs = tokenizer(parts.SENTENCES, return_tensors="pt", padding=True)
    ours = processor.encode_source(parts.SENTENCES, return_tensors="pt")
    assert torch.equal(ours["input_ids"], inputs["input_ids"])
    assert torch.equal(ours["attention_mask"], inputs["attention_mask"])
    seen = set()
    for settings in ({}, {"num_beams": 1}, {"num_beams": 3, "no_repeat_ngram_size": 2, "max_new_tokens": 9}):
        expected = original.generate(**inputs, **language, **settings)
        if language:
            assert (expected[:, 1] == language["forced_bos_token_id"]).all()
        assert torch.equal(model.encoder.translator.generate(**ours, **settings), expected)
        seen |= {tuple(row) for row in expected.tolist()}
        texts = tokenizer.batch_decode(expected, skip_special_tokens=True)
        assert model.translate(parts.SENTENCES, processor, **settings) == texts
    assert len(seen) > 3


def test_translate_takes_one_text_and_keeps_empty_ones_empty(composed):
    model, processor = composed("gated")
    one = model.translate(parts.SENTENCES[1], processor)
    assert one == model.translate(parts.SENTENCES, processor)[1:2]
    assert model.translate(["", parts.SENTENCES[1], "  "], processor) == ["", one[0], ""]
    assert model.translate([], processor) == []


@pytest.mark.parametrize("settings", [{"num_return_sequences": 2, "num_beams": 2}, {"return_dict_in_generate": True}])
@pytest.mark.parametrize("text", [parts.SENTENCES[0], ""])
def test_translate_refuses_what_is_no_text_for_each(composed, settings, text):
    model, processor = composed("gated")
    with pytest.raises(
        TypeError, match=f"`translate` gives one text for each and does not take '{next(iter(settings))}'"
    ):
        model.translate(text, processor, **settings)


def test_starts_of_two_tokens(composed):
    for translator, (_, _, languages) in TRANSLATORS.items():
        _, processor = composed("gated", translator)
        assert len(processor.decoder_start_token_ids) == (2 if languages else 1)
