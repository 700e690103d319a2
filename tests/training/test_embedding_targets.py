"""The objective "embeddings": which embeddings an alignment is to write, by hand, and what comes of learning it."""

import copy
import re

import parts
import pytest
import torch
from datasets import Dataset
from transformers.utils import logging

from tall_hf import compose
from tall_hf.training.alignment import pretrain_alignments
from tall_hf.training.alignment_settings import AlignmentSettings
from tall_hf.training.embedding_targets import EmbeddingTargets


SETTINGS = AlignmentSettings(
    objective="embeddings", batch_size=4, max_epochs=40, validation_share=0.2, learning_rate=5e-3
)


@pytest.fixture
def rows(composed):
    _, processor = composed("gated")
    encoded = processor(text=parts.SENTENCES * 3, translations=parts.TRANSLATIONS * 3)
    return Dataset.from_dict({name: encoded[name] for name in ("input_ids", "llm_input_ids")})


def embedding(model, piece):
    return (model.decoder.get_input_embeddings().weight[piece] * model.decoder.embed_scale).detach()


def tokens_of(processor, text):
    return processor.llm_tokenizer(text)["input_ids"]


def test_pieces_are_laid_over_tokens_by_their_letters(composed, monkeypatch):
    """ "Dana lives": tokens "D", "ana", " lives", and pieces of 2 and 2 letters, and of 5."""
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    monkeypatch.setattr(targets, "_pieces", lambda word: {"Dana": [(0, 2, 7), (2, 4, 8)], "lives": [(0, 5, 9)]}[word])

    class Tokenizer:
        def decode(self, row, **_):
            return "Dana lives"

        def __call__(self, text, **_):
            return {"input_ids": [1, 2, 3, 4], "offset_mapping": [(0, 1), (1, 4), (4, 10), (10, 10)]}

    targets.llm_tokenizer = Tokenizer()
    found, known = targets([[1, 2, 3, 4], [4, 4]])
    assert known.tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # an end token, and a row that text does not give back
    torch.testing.assert_close(found[0], embedding(model, 7))
    torch.testing.assert_close(found[1], (embedding(model, 7) + 2 * embedding(model, 8)) / 3)
    torch.testing.assert_close(found[2], embedding(model, 9))  # its space belongs to nothing
    assert not found[3:].any()


def test_a_words_pieces_cover_it_whatever_the_tokenizer_cuts(composed):
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    for word in ("apple", "Haifa.", "q", "東京", ">>heb<<", "</s>", "…", "x" * 40):
        spans = targets._pieces(word)
        assert [piece for *_, piece in spans] == processor.tokenizer(f" {word}", add_special_tokens=False)[
            "input_ids"
        ], word
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(len(word))
        for (_, end, _), (start, *_) in zip(spans, spans[1:], strict=False):
            assert end == start


def test_pieces_are_as_long_as_their_letters_and_unknown_ones_take_what_is_left(composed, monkeypatch):
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    pieces = {"▁Da": 11, "na": 12, "<unk>": 1, "▁": 13}

    class Tokenizer:
        unk_token_id = 1

        def __init__(self, *cut):
            self.cut = cut

        def __call__(self, text, **_):
            return {"input_ids": [pieces[piece] for piece in self.cut]}

        def convert_ids_to_tokens(self, ids):
            return [{index: piece for piece, index in pieces.items()}[index] for index in ids]

    for word, cut, expected in (
        ("Dana", ("▁Da", "na"), [(0, 2, 11), (2, 4, 12)]),
        ("Dana東", ("▁Da", "na", "<unk>"), [(0, 2, 11), (2, 4, 12), (4, 5, 1)]),
        ("東京na都", ("▁", "<unk>", "na", "<unk>"), [(0, 0, 13), (0, 1.5, 1), (1.5, 3.5, 12), (3.5, 5, 1)]),
        ("Danana", ("▁Da", "na"), [(0, 3, 11), (3, 6, 12)]),  # a normaliser made it shorter
        ("?", ("▁",), [(0, 1, 13)]),
    ):
        targets.tokenizer = Tokenizer(*cut)
        assert targets._pieces_of(word) == expected, word


def test_real_tokenizers_give_the_translators_own_embeddings(composed):
    """A token of letters that all lie in one piece is to become that piece."""
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    checked = 0
    for text in parts.ENGLISH:
        row = tokens_of(processor, text)
        found, known = targets([row])
        assert found.shape == (len(row), model.config.hr_lr_config.d_model)
        offsets = processor.llm_tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        assert known.tolist() == [bool(text[first:last].strip()) for first, last in offsets]
        words = [word.span() for word in re.finditer(r"\S+", text)]
        for token, (first, last) in enumerate(offsets):
            first += text[first:last].startswith(" ")
            for start, end in words:
                for piece_start, piece_end, piece in targets._pieces(text[start:end]):
                    if start + piece_start <= first < last <= start + piece_end:
                        torch.testing.assert_close(found[token], embedding(model, piece))
                        checked += 1
    assert checked > 20


def test_rows_are_independent_of_each_other(composed):
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    rows = [tokens_of(processor, text) for text in parts.ENGLISH]
    together, known = targets(rows)
    alone = [targets([row]) for row in rows]
    torch.testing.assert_close(together, torch.cat([found for found, _ in alone]))
    assert torch.equal(known, torch.cat([mask for _, mask in alone]))


def test_a_cut_translation_is_read_as_it_stands(composed):
    model, processor = composed("gated")
    targets = EmbeddingTargets(model, processor)
    row = tokens_of(processor, "Dana lives in the red house")
    found, known = targets([row[2:]])
    text = processor.llm_tokenizer.decode(row[2:])
    assert known.any()
    torch.testing.assert_close(found, targets([tokens_of(processor, text)])[0])


def test_what_its_text_does_not_give_back_is_left_out_and_told(fresh, rows, caplog):
    model, processor = fresh("gated")
    targets = EmbeddingTargets(model, processor)
    found, known = targets([])
    assert found.shape == (0, model.config.hr_lr_config.d_model)
    assert not known.numel()
    unreadable = [processor.llm_tokenizer.pad_token_id] * 50
    assert not targets([unreadable])[1].any()
    # A batch of such rows alone is passed over, and the loss is that of the batches there were.
    some = rows.remove_columns("llm_input_ids").add_column(
        "llm_input_ids", [unreadable] * 8 + rows["llm_input_ids"][8:]
    )
    settings = AlignmentSettings(objective="embeddings", batch_size=1, max_epochs=1, validation_share=0.4)
    logger = logging.get_logger("tall_hf.training.alignment")
    logger.addHandler(caplog.handler)
    try:
        report = pretrain_alignments(model, processor, some, settings, progress=False).alignments["target_alignment"]
    finally:
        logger.removeHandler(caplog.handler)
    assert 0 < report.share_with_target < 0.8
    assert f"Only {report.share_with_target:.0%} of the LLM's tokens have an embedding to learn" in caplog.text
    assert 0.3 < report.history[1]["train_loss"] / report.history[1]["validation_loss"] < 3
    none = rows.remove_columns("llm_input_ids").add_column("llm_input_ids", [unreadable] * len(rows))
    with pytest.raises(ValueError, match=r"None of the 300 tokens of 6 held-out translations has a target"):
        pretrain_alignments(model, processor, none, settings, progress=False)


@pytest.mark.parametrize("llm", ["llama", "gpt2", "bloom"])
def test_other_language_models_tokens_have_targets(composed, llm):
    """Whether the tokenizer writes a beginning, and whatever stands in the text that looks special."""
    model, processor = composed("gated", llm=llm)
    targets = EmbeddingTargets(model, processor)
    for text in ("Dana lives in Haifa", "the red house , today .", "a </s> b", "don't go"):
        row = processor(text="x", translations=text)["llm_input_ids"][0]
        found, known = targets([row])
        assert known.sum() >= len(text.split()), text
        assert not found[~known].any()


def test_half_precision_models_learn_too(part_folders, rows):
    model, processor = compose(**part_folders(), source_bridge="gated", warm_start=True, dtype=torch.bfloat16)
    report = pretrain_alignments(model, processor, rows, SETTINGS, progress=False).alignments["target_alignment"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert report.explained_variance[1] > max(0, report.explained_variance[0])


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_only_alignment_2_changes_and_it_explains_more(fresh, rows, kind):
    model, processor = fresh("gated", alignment_type=kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = pretrain_alignments(model, processor, rows, SETTINGS, progress=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("encoder.target_alignment.")}
    start, end = report.alignments["target_alignment"].explained_variance
    assert start < 0.1
    assert end > 0.5


def test_it_goes_on_where_it_was_and_refuses_another_objective_or_translator(fresh, rows, tmp_path):
    undisturbed, processor = fresh("gated")
    settings = AlignmentSettings(objective="embeddings", batch_size=4, max_epochs=3, validation_share=0.2)
    first = copy.deepcopy(undisturbed)
    expected = pretrain_alignments(undisturbed, processor, rows, settings, tmp_path, progress=False)
    assert pretrain_alignments(copy.deepcopy(first), processor, rows, settings, tmp_path, progress=False) == expected
    other = AlignmentSettings(batch_size=4, max_epochs=3, validation_share=0.2)
    with pytest.raises(ValueError, match="objective embeddings → autoencoder"):
        pretrain_alignments(copy.deepcopy(first), processor, rows, other, tmp_path, progress=False)
    with torch.no_grad():
        first.decoder.get_input_embeddings().weight.add_(1)
    with pytest.raises(ValueError, match="changed embeddings"):
        pretrain_alignments(first, processor, rows, settings, tmp_path, progress=False)


def test_what_cannot_be_aligned_so_is_refused(part_folders, fresh, rows):
    model, processor = compose(**part_folders("nllb"), source_bridge="gated")
    with pytest.raises(ValueError, match="of type 'm2m_100'"):
        EmbeddingTargets(model, processor)
    model, processor = fresh("gated")
    model.config.hr_lr_config.share_encoder_decoder_embeddings = False
    with pytest.raises(ValueError, match="of type 'marian', with two"):
        EmbeddingTargets(model, processor)
    with pytest.raises(ValueError, match="`objective` must be one of 'autoencoder', 'embeddings', got 'words'"):
        AlignmentSettings(objective="words")
