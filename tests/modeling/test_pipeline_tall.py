"""The text-generation pipeline: completion and next words, alone and in batches, and what it refuses."""

import parts
import pytest
import torch
from transformers import TextIteratorStreamer

from tall_hf.modeling.pipeline_tall import TALLTextGenerationPipeline


@pytest.fixture
def pipe(composed):
    def build(*args, **settings):
        model, processor = composed(*args)
        return TALLTextGenerationPipeline(model=model, processor=processor, task="text-generation", **settings)

    return build


def test_continues_text_as_complete_does(pipe):
    pipe = pipe("gated")
    expected = pipe.model.complete(parts.SENTENCES, pipe.processor, max_words=2)
    assert pipe(parts.SENTENCES, max_words=2) == [[{"generated_text": text}] for text in expected]
    assert pipe(parts.SENTENCES[0], max_words=2) == [{"generated_text": expected[0]}]


def test_lists_next_words_as_next_words_does(pipe, translator):
    pipe = pipe("gated", translator)
    for text in parts.SENTENCES[:2]:
        [expected] = pipe.model.next_words(text, pipe.processor, top_k=3)
        assert pipe(text, top_k=3) == [{"word": word, "score": score} for word, score in expected]


@pytest.mark.parametrize("batch_size", [2, 10])
def test_a_batch_equals_each_text_alone(pipe, batch_size):
    pipe = pipe("gated")
    together = pipe(parts.SENTENCES, top_k=4, batch_size=batch_size)
    continued = pipe(parts.SENTENCES, max_words=1, generate_kwargs={"max_new_tokens": 5}, batch_size=batch_size)
    assert len(together) == len(continued) == len(parts.SENTENCES)
    for text, words, continuation in zip(parts.SENTENCES, together, continued, strict=True):
        alone = pipe(text, top_k=4)
        assert [one["word"] for one in words] == [one["word"] for one in alone]
        assert [one["score"] for one in words] == pytest.approx([one["score"] for one in alone], rel=1e-3)
        assert continuation == pipe(text, max_words=1, generate_kwargs={"max_new_tokens": 5})


def test_batches_are_read_together(pipe, monkeypatch):
    pipe, sizes = pipe("gated"), []
    next_words = pipe.model.next_words
    monkeypatch.setattr(
        pipe.model, "next_words", lambda texts, *a, **k: sizes.append(len(texts)) or next_words(texts, *a, **k)
    )
    pipe(parts.SENTENCES, top_k=1, batch_size=2)
    assert sizes == [2, 2, 1]


def test_reads_a_generator_lazily(pipe):
    pipe, read = pipe("gated"), []

    def texts():
        for text in parts.SENTENCES[:3]:
            read.append(text)
            yield text

    answers = pipe(texts(), top_k=1)
    first = next(iter(answers))
    assert first == pipe(parts.SENTENCES[0], top_k=1)
    assert len(read) < 3


def test_settings_may_be_given_at_loading(pipe):
    assert pipe("gated", top_k=2)(parts.SENTENCES[0]) == pipe("gated")(parts.SENTENCES[0], top_k=2)


def test_generation_settings_reach_generate(pipe):
    pipe = pipe("gated")
    outputs = set()
    for seed in range(3):
        torch.manual_seed(seed)
        outputs.add(pipe(parts.SENTENCES[0], max_words=3, generate_kwargs={"do_sample": True})[0]["generated_text"])
    assert len(outputs) > 1


def test_streams_the_answer_to_a_single_text(pipe):
    # Some random models add nothing to some texts.
    pipe, text = next(
        (made, text)
        for made in map(pipe, parts.BRIDGES)
        for text in parts.SENTENCES
        if made(text, max_words=3)[0]["generated_text"] != text
    )
    streamer = TextIteratorStreamer(pipe.processor.tokenizer)
    [answer] = pipe(text, max_words=3, streamer=streamer)
    pieces = list(streamer)
    assert "".join(pieces) == answer["generated_text"]
    assert len(pieces) > 2
    for several in (parts.SENTENCES[:2], (text for text in parts.SENTENCES[:2])):
        with pytest.raises(ValueError, match="`streamer` takes a single text, not a list"):
            list(pipe(several, streamer=streamer))
    with pytest.raises(ValueError, match="`top_k` lists next words"):
        pipe(parts.SENTENCES[0], top_k=2, streamer=streamer)


def test_bad_input_is_refused(pipe):
    pipe = pipe("gated")
    with pytest.raises(TypeError, match="Unknown argument 'num_beams'.*top_k, max_words, refresh_words"):
        pipe("שלום", num_beams=3)
    with pytest.raises(ValueError, match="`top_k` lists next words"):
        pipe("שלום", top_k=3, max_words=2)
    for wrong in (3, [3], [["שלום"]]):
        with pytest.raises(TypeError, match="Expected a text or a list of texts, got (int|list)"):
            list(pipe(wrong))
