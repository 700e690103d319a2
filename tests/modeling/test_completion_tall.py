"""complete: how many words are added, where it stops, how often the text is read again, and streaming."""

from threading import Thread

import parts
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, TextIteratorStreamer, TextStreamer, generation
from transformers.generation import BaseStreamer


class Script(LogitsProcessor):
    """Makes generate write the given continuations, {text: continuation}, and then end the sentence."""

    def __init__(self, processor, continuations):
        self.pad = processor.tokenizer.pad_token_id
        self.eos = processor.tokenizer.eos_token_id
        self.scripts = []
        for text, continuation in continuations.items():
            prefix, whole = processor.encode_target([text, f"{text} {continuation}"])
            assert whole[: len(prefix)] == prefix
            self.scripts.append((prefix, whole[len(prefix) :]))

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -1e4)
        for row, ids in enumerate(input_ids.tolist()):
            written = [token for token in ids if token != self.pad]
            [(prefix, script)] = [one for one in self.scripts if written[: len(one[0])] == one[0]]
            position = len(written) - len(prefix)
            forced[row, script[position] if position < len(script) else self.eos] = 0
        return forced


CONTINUATIONS = {
    "דנה גרה": "בבית ירוק בבוקר היום",
    "יוסי נוסע": "לעבודה באוטובוס",
    "אתה": "קוראת ספר על ים גדול",
    "שלום": "עולם",
}
TEXTS = list(CONTINUATIONS)


@pytest.fixture
def scripted(composed, monkeypatch):
    """`scripted(**settings)` completes TEXTS as CONTINUATIONS say; returns the texts and all that was translated."""
    model, processor = composed("gated")
    translated = []
    translate = model.translate
    monkeypatch.setattr(model, "translate", lambda texts, *rest: translated.append(texts) or translate(texts, *rest))

    def run(texts=TEXTS, continuations=CONTINUATIONS, **settings):
        translated.clear()
        script = LogitsProcessorList([Script(processor, continuations)])
        return model.complete(texts, processor, logits_processor=script, **settings), list(translated)

    return run


def grown(text, num_words):
    return " ".join([text, *CONTINUATIONS[text].split()[:num_words]])


@pytest.mark.parametrize("max_words", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("refresh_words", [0, 1, 2])
def test_words_are_counted_and_the_sentences_end_is_kept(scripted, max_words, refresh_words):
    texts, _ = scripted(max_words=max_words, refresh_words=refresh_words)
    assert texts == [grown(text, max_words) for text in TEXTS]


@pytest.mark.parametrize(
    ("refresh_words", "rounds"), [(0, [0]), (1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3]), (4, [0]), (9, [0])]
)
def test_the_grown_text_is_translated_every_few_words(scripted, refresh_words, rounds):
    _, translated = scripted(max_words=4, refresh_words=refresh_words)
    # A text whose sentence has ended is not read again: it is known to have ended once a round has seen its end.
    expected = [
        [grown(text, words) for text in TEXTS if words == 0 or len(CONTINUATIONS[text].split()) > words]
        for words in rounds
    ]
    assert translated == expected


def test_given_translations_are_for_the_first_reading(scripted):
    given = ["Dana lives", "Yossi goes", "You", "Hello"]
    assert scripted(max_words=2, translations=given)[1] == []
    _, translated = scripted(max_words=2, refresh_words=1, translations=given)
    assert translated == [[grown(text, 1) for text in TEXTS[:3]]]


@pytest.mark.parametrize("max_words", [1, 2])
def test_a_beginning_of_a_word_is_finished_first(composed, max_words):
    """A continuation that does not begin a word belongs to the text's last word, and counts as none."""
    model, processor = composed("gated")
    vocabulary = processor.tokenizer.get_vocab()
    letters = [piece for piece in "תה" if piece in vocabulary]
    assert len(letters) == 2
    text = "דנה גר"
    script = Script(processor, {text: "בבית ירוק"})
    prefix, tokens = script.scripts[0]
    script.scripts[0] = (prefix, [vocabulary[letters[1]], *tokens])
    [completed] = model.complete(text, processor, max_words=max_words, logits_processor=LogitsProcessorList([script]))
    assert completed == "דנה גרה " + " ".join(["בבית", "ירוק"][:max_words])


def test_a_word_is_not_cut_when_the_room_for_tokens_ends(scripted):
    """max_new_tokens is the caller's own limit, and may cut a word; max_words does not."""
    texts, _ = scripted(max_words=1)
    assert texts == [grown(text, 1) for text in TEXTS]
    longest = max(len(CONTINUATIONS[text].split()[0]) for text in TEXTS)
    assert longest > 4
    cut, _ = scripted(max_words=1, max_new_tokens=1)
    assert all(new.startswith(one) for new, one in zip(texts, cut, strict=True))


def test_one_text_and_none(scripted):
    assert scripted(texts=TEXTS[0], max_words=1)[0] == [grown(TEXTS[0], 1)]
    assert scripted(texts=[])[0] == []


def test_the_callers_list_stays_as_it_was(scripted):
    texts = list(TEXTS)
    scripted(texts=texts, max_words=2, refresh_words=1)
    assert texts == TEXTS


@pytest.mark.parametrize(("refresh_words", "num_beams"), [(0, 1), (0, 2), (1, 1)])
def test_a_batch_equals_each_text_alone(composed, translator, refresh_words, num_beams):
    model, processor = composed("gated", translator)
    settings = {"max_words": 2, "refresh_words": refresh_words, "num_beams": num_beams, "no_repeat_ngram_size": 2}
    texts = parts.SENTENCES[:3]
    together = model.complete(texts, processor, max_new_tokens=10, **settings)
    alone = [model.complete(text, processor, max_new_tokens=10, **settings)[0] for text in texts]
    assert together == alone
    assert all(new.startswith(old) for new, old in zip(together, texts, strict=True))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"do_sample": True, "temperature": 0.5}])
def test_nothing_is_warned_of(composed, monkeypatch, settings):
    """The paper's sampling settings stand in the model's generation configuration, beside greedy decoding too."""
    said = []
    for module in (generation.utils, generation.configuration_utils):
        for level in ("warning", "warning_once"):
            monkeypatch.setattr(module.logger, level, lambda message, *rest: said.append(message))
    model, processor = composed("gated")
    assert model.generation_config.temperature == 0.7
    model.complete(parts.SENTENCES[0], processor, max_words=1, **settings)
    assert said == []


def test_greedy_unless_sampling_is_asked_for(composed):
    model, processor = composed("gated")
    outputs = {"greedy": [], "sampling": []}
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        outputs["greedy"].append(model.complete(parts.SENTENCES, processor, max_new_tokens=6))
        outputs["sampling"].append(model.complete(parts.SENTENCES, processor, max_new_tokens=6, do_sample=True))
    assert len(set(map(tuple, outputs["greedy"]))) == 1
    assert len(set(map(tuple, outputs["sampling"]))) > 1


@pytest.mark.parametrize(
    "wrong", [{"max_words": -1}, {"refresh_words": -2}, {"max_words": 2.5}, {"max_new_tokens": 0}, {"max_words": "3"}]
)
def test_what_is_no_count_is_refused(composed, wrong):
    model, processor = composed("gated")
    [(name, count)] = wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least [01], got {count!r}"):
        model.complete("שלום", processor, **wrong)


class Pieces(TextStreamer):
    """Keeps what it is handed, and whether the stream has ended."""

    def __init__(self, **settings):
        super().__init__(None, **settings)
        self.pieces, self.ends = [], 0

    def on_finalized_text(self, text, stream_end=False):
        self.pieces.append(text)
        self.ends += stream_end


@pytest.mark.parametrize("max_words", [0, 1, 2, 10])
@pytest.mark.parametrize("refresh_words", [0, 1, 2])
def test_the_answer_is_streamed_word_by_word(scripted, max_words, refresh_words):
    for text in TEXTS:
        streamer = Pieces()
        [answer], _ = scripted(texts=text, max_words=max_words, refresh_words=refresh_words, streamer=streamer)
        assert answer == grown(text, max_words)
        assert streamer.pieces == [text, *(f" {word}" for word in answer.split()[len(text.split()) :]), ""]
        assert streamer.ends == 1


def test_a_word_is_handed_on_when_the_next_one_begins(scripted, composed, monkeypatch):
    model, _ = composed("gated")
    steps, seen = [], []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: steps.append(1) or forward(**inputs))

    class Clock(Pieces):
        def on_finalized_text(self, text, stream_end=False):
            seen.append((text, len(steps)))

    scripted(texts=TEXTS[0], max_words=3, streamer=Clock())
    # The first word is known before the second is written, and so on; the last at the end.
    at = [step for text, step in seen if text]
    assert len(at) == 4
    assert sorted(set(at)) == at


@pytest.mark.parametrize("skip_prompt", [False, True])
def test_streamed_pieces_joined_are_the_answer(composed, translator, skip_prompt):
    model, processor = composed("gated", translator)
    for text in (*parts.SENTENCES[:2], "", "  ", " שלום  ", "דנה גרה \U0001f600", "<b>דנה</b>"):
        streamer = Pieces(skip_prompt=skip_prompt)
        [answer] = model.complete(text, processor, max_words=3, max_new_tokens=8, streamer=streamer)
        assert [answer] == model.complete(text, processor, max_words=3, max_new_tokens=8)
        assert "".join(streamer.pieces) == answer[len(text.rstrip()) if skip_prompt else 0 :]


def test_the_end_of_a_begun_word_is_streamed_without_a_space(composed):
    model, processor = composed("gated")
    text, streamer = "דנה גר", Pieces()
    script = Script(processor, {text: "בבית ירוק"})
    prefix, tokens = script.scripts[0]
    script.scripts[0] = (prefix, [processor.tokenizer.get_vocab()["ה"], *tokens])
    model.complete(text, processor, max_words=2, logits_processor=LogitsProcessorList([script]), streamer=streamer)
    assert streamer.pieces == [text, "ה", " בבית", " ירוק", ""]


def test_an_iterator_in_another_thread_gets_the_pieces(composed):
    model, processor = composed("gated")
    streamer = TextIteratorStreamer(processor.tokenizer, timeout=60)
    settings = {"max_words": 3, "refresh_words": 1, "streamer": streamer}
    thread = Thread(target=model.complete, args=(parts.SENTENCES[0], processor), kwargs=settings)
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert ["".join(pieces)] == model.complete(parts.SENTENCES[0], processor, max_words=3, refresh_words=1)


def test_a_stream_ends_when_the_answer_fails(composed, monkeypatch):
    model, processor = composed("gated")
    streamer = Pieces()
    with pytest.raises(ValueError, match="num_beams"):
        model.complete("שלום", processor, num_beams=2, streamer=streamer)
    assert streamer.ends == 1


def test_what_cannot_be_streamed_is_refused(composed):
    model, processor = composed("gated")
    for texts in ([], ["שלום", "שלום"]):
        with pytest.raises(ValueError, match=f"takes one text, got {len(texts)}"):
            model.complete(texts, processor, streamer=Pieces())
    with pytest.raises(TypeError, match="got BaseStreamer; `generate` takes streamers of tokens"):
        model.complete("שלום", processor, streamer=BaseStreamer())
