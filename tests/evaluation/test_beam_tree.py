"""Beams that share the cache of their text answer as beams with a cache of their own."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tall_hf.evaluation.approaches.language_model import LanguageModel, encode_words
from tall_hf.evaluation.beam_tree import BeamTree
from tall_hf.evaluation.build import model_loader


VOCABULARY, FILLER = 40, 0
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, **SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=1, **SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2)),
}


def read(llm, mask, ids):
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return llm(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_each_beam_reads_its_text_and_its_own_tokens(family, attention):
    """Against the whole row of each beam, read from its start."""
    torch.manual_seed(0)
    llm = FAMILIES[family]().eval()
    llm.set_attn_implementation(attention)
    texts = [[3, 4, 5, 6], [7], [8, 9], [10, 11, 12]]
    ids = torch.tensor([[FILLER] * (4 - len(text)) + text for text in texts])
    cache = read(llm, (ids != FILLER).long(), ids)
    assert BeamTree.can_grow(llm, cache)
    tree = BeamTree(llm, cache, (ids != FILLER).long(), FILLER)

    rows = texts
    # Beams branch, some texts have none any more, and at last one text is left: the others are let go of.
    growth = [([1, 2, 3, 4, 5], [0, 0, 1, 2, 3]), ([6, 7, 8, 9], [0, 1, 1, 4]), ([1, 2, 3], [0, 0, 2]), ([5], [1])]
    for tokens, parents in growth:
        rows = [[*rows[parent], token] for token, parent in zip(tokens, parents, strict=True)]
        found = tree.step(torch.tensor(tokens), torch.tensor(parents))
        expected = torch.cat([llm(torch.tensor([row])).logits[:, -1] for row in rows])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len(tree.visible) == 1
    assert cache.layers[0].keys.shape[0] == 1


@torch.inference_mode()
def test_where_the_mask_would_not_be_obeyed_beams_have_caches_of_their_own():
    ids = torch.tensor([[3, 4, 5]])
    bloom = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2)).eval()
    assert not BeamTree.can_grow(bloom, bloom(ids, use_cache=True).past_key_values)
    # A cache that forgets what lies outside of its window.
    sliding = MistralForCausalLM(
        MistralConfig(vocab_size=VOCABULARY, sliding_window=4, num_key_value_heads=2, **SIZES)
    )
    assert not BeamTree.can_grow(sliding, sliding(ids, use_cache=True).past_key_values)
    qwen = FAMILIES["qwen2"]()
    assert BeamTree.can_grow(qwen, qwen(ids, use_cache=True).past_key_values)
    qwen.config._attn_implementation = "flash_attention_2"
    assert not BeamTree.can_grow(qwen, DynamicCache())


@pytest.mark.parametrize("prompt_length", [0, 3])
def test_words_and_their_probabilities_are_the_same(part, prompt_length, monkeypatch):
    llm, tokenizer = model_loader(AutoModelForCausalLM, part("qwen2"))()
    torch.manual_seed(0)
    prompt = torch.randn(prompt_length, llm.config.hidden_size) if prompt_length else None
    model = LanguageModel(llm, tokenizer, prompt)
    texts = ["Dana lives", "The girl reads a book about a big", "", "דנה גרה בחיפה", "You are very"]
    words = ["in", "sea", "world", "היום", "tired"]
    found, scores = model.next_words(texts, 8), model.log_probabilities(texts, words)
    calls = []
    monkeypatch.setattr(BeamTree, "can_grow", lambda *args: calls.append(args))
    expected = model.next_words(texts, 8)
    assert calls  # else both would be the same way
    assert [[word for word, _ in row] for row in found] == [[word for word, _ in row] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert [p for _, p in row] == pytest.approx([p for _, p in other], rel=1e-4)
    assert scores == pytest.approx(model.log_probabilities(texts, words), rel=1e-4)


def test_an_empty_text_has_probabilities_of_its_own(part):
    """Its filler is no token of the text: none of a word's own is lost to it."""
    llm, tokenizer = model_loader(AutoModelForCausalLM, part("qwen2"))()
    model = LanguageModel(llm, tokenizer)
    [found] = model.next_words([""], 5)
    words = [word for word, _ in found]
    scores = model.log_probabilities([""] * len(words), words)  # all endings, of which the search may miss some
    assert torch.tensor(scores).exp().tolist() == pytest.approx([p for _, p in found], rel=0.02)
    prefixes, wholes = encode_words(tokenizer, [""], ["world"])
    assert wholes[0][len(prefixes[0]) :] == tokenizer(" world")["input_ids"]


def test_a_word_that_leaves_no_token_cannot_be_said(part, monkeypatch):
    llm, tokenizer = model_loader(AutoModelForCausalLM, part("qwen2"))()
    module = "tall_hf.evaluation.approaches.language_model.encode_words"
    model = LanguageModel(llm, tokenizer)
    expected = model.log_probabilities(["Dana lives"], ["in"])[0]
    prefixes, wholes = encode_words(tokenizer, ["Dana lives", "Dana lives"], ["in", "in"])
    monkeypatch.setattr(module, lambda *_: (prefixes, [prefixes[0], wholes[1]]))
    assert model.log_probabilities(["Dana lives"] * 2, ["in"] * 2) == [-math.inf, pytest.approx(expected, rel=1e-4)]
