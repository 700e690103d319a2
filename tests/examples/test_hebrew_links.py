"""What the links of the chain find by themselves, against models asked one by one."""

import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, MarianMTModel


sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "hebrew"))

import links  # noqa: E402

from tall_hf.evaluation.approaches.language_model import LanguageModel  # noqa: E402
from tall_hf.measuring.statistics import share  # noqa: E402


def test_links_by_hand(tmp_path, part):
    """Words of tiny models one by one and in batches, and an n-gram model of three sentences."""
    found = links.ngram(["the cat sat", "the cat sat", "a dog ran"], [("the cat", "sat"), ("a dog", "sat")], order=3)
    assert (found["accuracy"], found["n"]) == (0.5, 2)

    folder = part("qwen2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    texts = ["Dana lives in", "The girl reads a book about a big", "Hello", "Dana lives in " * 200]
    # Behind the end of another text, where this tokenizer has no mark of a beginning.
    end = model.get_input_embeddings().weight[[tokenizer.eos_token_id]]
    best = [LanguageModel(model, tokenizer, end).next_words([text], 1)[0][0][0] for text in texts]
    questions = [*zip(texts, best, strict=True), ("Dana lives in", "xyz")]
    for size in (1, 5):
        assert links.language_model(str(folder), questions, size) == share([True] * 4 + [False])
    with pytest.raises(SystemExit, match="no last word"):
        links.language_model(str(folder), [], 2)

    back = part("marian_en_he")
    long = [("דנה גרה " * 200, "בחיפה")]
    questions = [("דנה גרה", "בחיפה"), ("הילדה קוראת ספר על ים", "גדול"), ("שלום", "עולם")]
    sources = ["Dana lives", "A book " * 100, "", "x"]
    figures = [links.translator_back(str(back), sources, questions + long, size) for size in (1, 3)]
    assert figures[0]["n"] == 3
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-5)
    assert figures[0]["accuracy"] == figures[1]["accuracy"]
    tokenizer, model = AutoTokenizer.from_pretrained(back), MarianMTModel.from_pretrained(back).eval()
    labels = tokenizer(text_target="שלום עולם", add_special_tokens=False, return_tensors="pt")["input_ids"]
    by_hand = model(**tokenizer("Hello", return_tensors="pt"), labels=labels).loss.item()
    assert links.translator_back(str(back), ["Hello"], questions[2:], 4)["loss"] == pytest.approx(by_hand, rel=1e-4)


def test_punctuation_is_no_part_of_an_answer(monkeypatch, part):
    """As `tall evaluate` judges: a word with its question mark is that word."""
    answers = {"in 30": [("years?", 0.5)], "on the": [("moon", 0.5)], "by": [("", 0.5)]}

    class Asked:
        def __init__(self, *parts):
            pass

        def next_words(self, texts, top_k):
            return [answers[text] for text in texts]

    monkeypatch.setattr(links, "LanguageModel", Asked)
    questions = [("in 30", "years"), ("on the", "moon"), ("by", "car")]
    assert links.language_model(str(part("qwen2")), questions, 2) == share([True, True, False])
