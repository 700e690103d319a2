"""LastTokenCollator on rows written by hand: every loss position, start tokens, truncation, padding, errors."""

import pytest
import torch

from tall_hf import LastTokenCollator
from tall_hf.training.curriculum import narrow_labels


class Tokenizer:
    """Ids 0 to 3 are special, 10 to 19 begin a word, 20 to 29 continue one; 19 and 29 have no letter."""

    eos_token_id = 0

    def __init__(self, pad_token_id):
        self.pad_token_id = pad_token_id

    def get_vocab(self):
        lettered = {f"▁a{i}": 10 + i for i in range(9)} | {f"b{i}": 20 + i for i in range(9)}
        return {"</s>": 0, "<unk>": 1, "<pad>": 2, "<s>": 3, "▁": 19, ".": 29} | lettered


class Processor:
    """As much of a TALLProcessor as a collator needs."""

    def __init__(self, decoder_start_token_ids=(3,), max_target_length=None):
        self.tokenizer, self.source_tokenizer, self.llm_tokenizer = Tokenizer(3), Tokenizer(1), Tokenizer(2)
        self.decoder_start_token_ids = list(decoder_start_token_ids)
        self.max_target_length = max_target_length

    def word_pieces(self, vocab_size=None):
        ids = torch.arange(30)
        return (ids >= 10) & (ids < 20), ids >= 20


# Words of one, three and two pieces; the second row has one word of three.
LONG = {"input_ids": [40, 41, 42], "llm_input_ids": [50], "labels": [10, 11, 20, 21, 12, 22]}
SHORT = {"input_ids": [43], "llm_input_ids": [51, 52], "labels": [13, 23, 24]}


def labels_of(row, **settings):
    processor = settings.pop("processor", Processor())
    return LastTokenCollator(processor, **settings)([row])["labels"][0].tolist()


@pytest.mark.parametrize(
    ("target", "learned"),
    [
        ([10, 11, 20, 29], 3),  # a full stop behind the word is learned with it
        ([10, 11, 20, 19, 29], 4),  # and one that stands alone begins no word
        ([10, 11, 20, 19, 29, 19, 29], 6),
        ([10, 19, 12], 1),
        ([20, 21, 19, 29], 4),  # a target cut inside its word
        ([19, 29, 19, 29], 2),  # no letter anywhere: the last of the marks
    ],
)
def test_a_mark_that_stands_alone_begins_no_word(target, learned):
    row = {**LONG, "labels": target}
    assert labels_of(row) == [-100] * (len(target) - learned) + target[len(target) - learned :]
    collator = LastTokenCollator(Processor(), loss_positions="all")
    whole = torch.tensor([[-100, *target], [-100, *target[1:], -100]])
    narrowed = narrow_labels(whole, "last_word", None, collator.word_masks)
    assert narrowed[0].tolist() == [-100, *labels_of(row)]
    assert narrowed[1].tolist() == [-100, *labels_of({**row, "labels": target[1:]}), -100]


def test_batch_is_shifted_padded_and_masked():
    batch = LastTokenCollator(Processor(), loss_positions="all")([LONG, SHORT])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[40, 41, 42], [43, 1, 1]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "llm_input_ids": [[50, 2], [51, 52]],
        "llm_attention_mask": [[1, 0], [1, 1]],
        "decoder_input_ids": [[3, 10, 11, 20, 21, 12], [3, 13, 23, 3, 3, 3]],
        "decoder_attention_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]],
        "labels": [[10, 11, 20, 21, 12, 22], [13, 23, 24, -100, -100, -100]],
    }
    assert all(value.dtype == torch.long for value in batch.values())


@pytest.mark.parametrize(
    ("settings", "long", "short"),
    [
        ({}, 2, 3),  # by default the last word
        ({"loss_positions": "last_word"}, 2, 3),
        ({"loss_positions": "last_token"}, 1, 1),
        ({"loss_positions": "last_n", "last_n": 1}, 1, 1),
        ({"loss_positions": "last_n", "last_n": 4}, 4, 3),
        ({"loss_positions": "last_n", "last_n": 100}, 6, 3),
        ({"loss_positions": "continuation"}, 4, 2),
        ({"loss_positions": "all"}, 6, 3),
    ],
)
def test_loss_positions(settings, long, short):
    rows = [{**LONG, "continuation_length": 4}, {**SHORT, "continuation_length": 2}]
    batch = LastTokenCollator(Processor(), **settings)(rows)
    for row, labels, learned in zip((LONG, SHORT), batch["labels"].tolist(), (long, short), strict=True):
        length = len(row["labels"])
        expected = [-100] * (length - learned) + row["labels"][length - learned :]
        assert labels == expected + [-100] * (6 - length)


def test_last_word_without_a_beginning_is_the_whole_row():
    assert labels_of({**LONG, "labels": [20, 21]}) == [20, 21]


def test_special_tokens_behind_the_target_are_no_part_of_it():
    with_end = {**LONG, "labels": [*LONG["labels"], 0, 3]}
    assert labels_of(with_end) == labels_of(LONG)
    assert labels_of({**LONG, "labels": [10, 0, 11]}, loss_positions="all") == [10, 0, 11]


@pytest.mark.parametrize("loss_positions", ["last_token", "last_word", "all"])
def test_two_start_tokens(loss_positions):
    """NLLB's decoder reads its end token and the language; the first word follows the language."""
    processor = Processor(decoder_start_token_ids=(2, 9))
    collator = LastTokenCollator(processor, loss_positions=loss_positions)
    batch = collator([SHORT, LONG])
    assert batch["decoder_input_ids"][0].tolist() == [2, 9, 13, 23, 2, 2, 2]
    assert batch["decoder_attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    one_start = LastTokenCollator(Processor(), loss_positions=loss_positions)([SHORT, LONG])["labels"]
    assert batch["labels"][:, 0].tolist() == [-100, -100]
    assert torch.equal(batch["labels"][:, 1:], one_start)


@pytest.mark.parametrize(("starts", "longest"), [((3,), 4), ((2, 9), 3)])
def test_a_long_target_keeps_its_end(starts, longest):
    processor = Processor(decoder_start_token_ids=starts, max_target_length=4)
    batch = LastTokenCollator(processor, loss_positions="all")([LONG])
    kept = LONG["labels"][-longest:]
    assert batch["decoder_input_ids"].tolist() == [[*starts, *kept[:-1]]]
    assert batch["decoder_input_ids"].shape[1] == 4
    assert batch["labels"].tolist() == [[-100] * (len(starts) - 1) + kept]


def test_each_label_is_the_token_after_its_input():
    for starts in ((3,), (2, 9)):
        batch = LastTokenCollator(Processor(starts), loss_positions="all")([LONG, SHORT])
        inputs, labels = batch["decoder_input_ids"], batch["labels"]
        learned = labels[:, :-1] != -100
        assert torch.equal(
            labels[:, :-1][learned & (labels[:, 1:] != -100)], inputs[:, 1:][learned & (labels[:, 1:] != -100)]
        )


def test_rows_are_left_as_they_were_and_other_columns_ignored():
    row = {**LONG, "labels": [*LONG["labels"], 0], "text": "other"}
    before = {name: list(value) for name, value in row.items()}
    batch = LastTokenCollator(Processor())([row])
    assert "text" not in batch
    assert {name: list(value) for name, value in row.items()} == before


def test_tensors_are_rows_too():
    row = {name: torch.tensor(value) for name, value in LONG.items()}
    plain, tensors = (LastTokenCollator(Processor())([one]) for one in (LONG, row))
    assert all(torch.equal(plain[name], tensors[name]) for name in plain)


@pytest.mark.parametrize("name", ["input_ids", "llm_input_ids", "labels"])
def test_a_missing_column_is_named(name):
    row = {key: value for key, value in LONG.items() if key != name}
    with pytest.raises(ValueError, match=rf"no `{name}`, only .*processor\(text=..., translations=..., text_target="):
        LastTokenCollator(Processor())([row])


@pytest.mark.parametrize("labels", [[], [0], [3, 0]])
def test_a_target_without_words_is_refused(labels):
    with pytest.raises(ValueError, match="`labels` hold no token but the end's"):
        LastTokenCollator(Processor())([LONG, {**LONG, "labels": labels}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss_positions": "last"},
            "must be one of 'last_token', 'last_word', 'last_n', 'continuation', 'all', got 'last'",
        ),
        ({"loss_positions": "last_n"}, "`last_n` goes with"),
        ({"last_n": 2}, "`last_n` goes with"),
        ({"loss_positions": "last_n", "last_n": 0}, "`last_n` must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        LastTokenCollator(Processor(), **settings)
