"""Label scoring: what training would lose on each label, cached as in one batch, alone as together, ends counted or not."""

import copy
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tall_hf.modeling.labels_layer_fusion import labels_of_each


CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TEXTS = ["דנה גרה בחיפה", "שלום", "הילדה קוראת ספר על ים גדול"]
PROMPTS = ["Who lives", "", "The girl reads a book about"]
# One begins with another, and they are of several lengths.
LABELS = ["Hello", "Hello world", "Dana lives in Haifa", "sea"]


@pytest.mark.parametrize("prompt", ["", "The girl"])
@torch.no_grad()
def test_a_score_is_the_loss_of_training_on_the_label_summed_over_its_tokens(fused, llm, prompt):
    model, processor = fused(llm)
    scores = model.label_log_probabilities(TEXTS, processor, LABELS, prompt=prompt, batch_size=2)
    assert scores.shape == (len(TEXTS), len(LABELS)) and scores.dtype == torch.float32
    for text, row in zip(TEXTS, scores, strict=True):
        for label, score in zip(LABELS, row, strict=True):
            inputs = processor(text=text, prompt=prompt, text_target=label, return_tensors="pt")
            count = (inputs["labels"] != -100).sum()
            assert count == len(processor.tokenizer(label, add_special_tokens=False)["input_ids"]) + 1
            torch.testing.assert_close(score, -model(**inputs).loss * count, **CLOSE)


@pytest.mark.parametrize("include_end", [True, False])
@torch.no_grad()
def test_going_on_from_the_cache_is_as_reading_everything_in_one_padded_batch(fused, llm, include_end):
    model, processor = fused(llm)
    scores = model.label_log_probabilities(TEXTS, processor, LABELS, prompt=PROMPTS, include_end=include_end)
    pairs = [(text, prompt, label) for text, prompt in zip(TEXTS, PROMPTS, strict=True) for label in LABELS]
    texts, prompts, answers = (list(column) for column in zip(*pairs, strict=True))
    inputs = processor(text=texts, prompt=prompts, text_target=answers, return_tensors="pt")
    targets = inputs.pop("labels")
    if not include_end:
        targets[:, -1] = -100
    found = model(**inputs).logits[:, :-1].log_softmax(dim=-1)
    targets = targets[:, 1:]
    found = found.gather(2, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(targets == -100, 0).sum(dim=1)
    torch.testing.assert_close(scores, found.view(scores.shape), **CLOSE)


def test_a_text_gets_in_a_batch_what_it_gets_alone(fused, llm):
    model, processor = fused(llm)
    together = model.label_log_probabilities(TEXTS, processor, LABELS, prompt=PROMPTS, batch_size=3)
    for batch_size in (1, 2):
        again = model.label_log_probabilities(TEXTS, processor, LABELS, prompt=PROMPTS, batch_size=batch_size)
        torch.testing.assert_close(again, together, **CLOSE)
    for i, label in enumerate(LABELS):
        alone = model.label_log_probabilities(TEXTS, processor, [label], prompt=PROMPTS)
        torch.testing.assert_close(alone[:, 0], together[:, i], **CLOSE)
    # Other texts and prompts, other scores.
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_texts_may_have_labels_of_their_own(fused):
    model, processor = fused()
    own = [["sea", "Dana"], ["Hello world"], LABELS]
    scores = model.label_log_probabilities(TEXTS, processor, own, prompt=PROMPTS)
    assert scores.shape == (3, 4)
    assert torch.isneginf(scores).tolist() == [[False, False, True, True], [False, True, True, True], [False] * 4]
    for text, prompt, labels, row in zip(TEXTS, PROMPTS, own, scores, strict=True):
        alone = model.label_log_probabilities(text, processor, labels, prompt=prompt)
        torch.testing.assert_close(row[: len(labels)], alone[0], **CLOSE)
    found = model.classify(TEXTS, processor, own, prompt=PROMPTS)
    assert [sorted(label for label, _ in row) for row in found] == [sorted(labels) for labels in own]
    assert found[1] == [("Hello world", 1.0)]


def test_probabilities_are_of_the_labels_given_that_one_of_them_is_the_answer(fused):
    model, processor = fused()
    scores = model.label_log_probabilities(TEXTS, processor, LABELS)
    for row, found in zip(scores, model.classify(TEXTS, processor, LABELS), strict=True):
        assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
        assert sum(p for _, p in found) == pytest.approx(1)
        whole = sum(math.exp(score) for score in row.tolist())
        for label, probability in found:
            assert probability == pytest.approx(math.exp(row[LABELS.index(label)]) / whole, rel=1e-4)


def test_answers_are_outcomes_only_with_their_end(fused):
    model, processor = fused()
    with_end, without = (
        model.label_log_probabilities(TEXTS, processor, LABELS, include_end=end) for end in (True, False)
    )
    assert (with_end < without).all()
    # Every answer that begins with "Hello world" begins with "Hello".
    assert (without[:, 1] <= without[:, 0]).all()
    # All labels of one token are all ways to begin, and as whole answers they leave something to longer ones.
    vocabulary = sorted(processor.tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [token for token, _ in vocabulary if len(processor.encode_answers([token])[0]) == 2]
    assert len(words) > 50
    whole = model.label_log_probabilities(TEXTS[:1], processor, words).exp().sum()
    begun = model.label_log_probabilities(TEXTS[:1], processor, words, include_end=False).exp().sum()
    assert whole < begun <= 1 + 1e-5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_llm_without_preferences_pays_for_every_token_alike(uniform, data):
    model, processor = uniform
    words = st.lists(
        st.sampled_from(["Dana", "lives", "in", "Haifa", "and", "reads", "a", "big", "book"]), min_size=1, max_size=5
    )
    labels = data.draw(st.lists(words.map(" ".join), min_size=1, max_size=4, unique=True))
    end = data.draw(st.booleans())
    scores = model.label_log_probabilities(TEXTS, processor, labels, include_end=end)
    price = math.log(model.get_output_embeddings().weight.shape[0])
    counts = torch.tensor(
        [float(len(processor.tokenizer(label, add_special_tokens=False)["input_ids"]) + end) for label in labels]
    )
    torch.testing.assert_close(scores, -price * counts.expand(len(TEXTS), -1))
    mean = model.label_log_probabilities(TEXTS, processor, labels, include_end=end, normalize="tokens")
    torch.testing.assert_close(mean, torch.full_like(mean, -price))


@pytest.fixture(scope="module")
def uniform(fused):
    """A model that finds every token as probable as any other."""
    model, processor = copy.deepcopy(fused())
    model.get_output_embeddings().weight.data.zero_()
    return model, processor


def test_the_source_is_read_once_and_the_model_is_left_as_it_was(fused):
    model, processor = copy.deepcopy(fused())
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    model.llm.register_forward_hook(lambda *_: calls.append("llm"))
    model.train()
    scores = model.label_log_probabilities(TEXTS, processor, LABELS, batch_size=3)
    assert calls == ["encoder", "llm", "llm"]
    assert model.training and not scores.requires_grad
    torch.testing.assert_close(scores, fused()[0].label_log_probabilities(TEXTS, processor, LABELS), **CLOSE)
    calls.clear()
    # One token each, and nothing behind it to read.
    singles = [label for label in ["a", "b", "c"] if len(processor.encode_answers([label])[0]) == 2]
    model.label_log_probabilities(TEXTS, processor, singles, include_end=False)
    assert calls == ["encoder", "llm"]


def test_bfloat16_scores_come_in_float32(fused):
    model, processor = copy.deepcopy(fused())
    exact = model.label_log_probabilities(TEXTS, processor, LABELS)
    scores = model.to(torch.bfloat16).label_log_probabilities(TEXTS, processor, LABELS)
    assert scores.dtype == torch.float32 and scores.device.type == "cpu"
    torch.testing.assert_close(scores, exact, rtol=0.1, atol=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_on_an_accelerator_it_is_the_same(fused):
    model, processor = copy.deepcopy(fused())
    expected = model.label_log_probabilities(TEXTS, processor, LABELS)
    model.to(torch.accelerator.current_accelerator())
    scores = model.label_log_probabilities(TEXTS, processor, LABELS)
    assert scores.device.type == "cpu"
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


def test_a_language_of_the_sources_can_be_named(fused):
    model, processor = fused()
    hebrew, english = (
        model.label_log_probabilities(TEXTS, processor, LABELS, source_lang=lang) for lang in ("heb_Hebr", "eng_Latn")
    )
    assert not torch.equal(hebrew, english)
    assert torch.equal(hebrew, model.label_log_probabilities(TEXTS, processor, LABELS))


def test_nothing_to_read_gives_nothing(fused):
    model, processor = fused()
    assert model.label_log_probabilities([], processor, LABELS).shape[0] == 0
    assert model.classify([], processor, LABELS) == []


def test_what_cannot_be_scored_is_refused(fused):
    model, processor = fused()
    for labels, error, message in (
        ([], ValueError, "no labels"),
        (["a", "a"], ValueError, "'a' is there twice"),
        (["a", ""], ValueError, "'' has no token"),
        ([["a"], ["b"]], ValueError, "2 lists of labels for 3 texts"),
        ([["a"], [], ["b"]], ValueError, "no labels"),
        ([["a"], "b", ["c"]], TypeError, "texts and lists"),
        ("ab", TypeError, "list of labels"),
        ([1, 2], TypeError, "a list holding int"),
    ):
        with pytest.raises(error, match=message):
            model.label_log_probabilities(TEXTS, processor, labels)
    with pytest.raises(ValueError, match="`normalize` must be"):
        model.label_log_probabilities(TEXTS, processor, ["a"], normalize="letters")
    with pytest.raises(ValueError, match="`batch_size`"):
        model.label_log_probabilities(TEXTS, processor, ["a"], batch_size=0)
    with pytest.raises(ValueError, match="2 prompts for 3 texts"):
        model.label_log_probabilities(TEXTS, processor, ["a"], prompt=["a", "b"])


def test_labels_of_the_same_tokens_cannot_be_told_apart(fused, monkeypatch):
    model, processor = copy.deepcopy(fused())
    monkeypatch.setattr(processor, "encode_answers", lambda answers: [[5, 2] if answer else [2] for answer in answers])
    with pytest.raises(ValueError, match="'one' and 'two' are written with the same tokens"):
        model.label_log_probabilities(TEXTS, processor, ["one", "two"])


def test_one_list_is_for_all_texts():
    assert labels_of_each(["a", "b"], 2) == labels_of_each([["a", "b"], ["a", "b"]], 2)
