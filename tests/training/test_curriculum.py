"""LossCurriculum and narrow_labels: a schedule of the step alone, and the collator's own positions."""

import pytest
import torch
from trainings import make_rows

from tall_hf import LastTokenCollator
from tall_hf.training.curriculum import LossCurriculum, narrow_labels


def test_schedule():
    curriculum = LossCurriculum("last_word", share=0.3)
    assert curriculum.collated_positions == "all"
    assert [curriculum.positions_at(step, 10) for step in range(5)] == ["all"] * 3 + ["last_word"] * 2
    assert LossCurriculum("last_token").collated_positions == "last_token"
    assert LossCurriculum("last_token").positions_at(0, 10) == "last_token"


def test_positions_on_labels_written_by_hand():
    starts, lettered = torch.tensor([0, 0, 1, 0, 1, 0]).bool(), torch.tensor([0, 0, 1, 1, 1, 1]).bool()
    labels = torch.tensor([[-100, 2, 3, 4, 5, 5], [4, 5, -100, -100, -100, -100], [3, 5, 3, -100, -100, -100]])
    none = [-100] * 6

    def narrowed(*settings):
        return narrow_labels(labels, *settings, (starts, lettered)).tolist()

    assert narrowed("all", None) == labels.tolist()
    assert narrowed("last_word", None) == [
        [-100, -100, -100, 4, 5, 5],
        [4, 5, -100, -100, -100, -100],
        [3, 5, 3, -100, -100, -100],  # no word begins: the row is learned whole
    ]
    assert narrowed("last_token", None) == [none[:5] + [5], [-100, 5, *none[2:]], [-100, -100, 3, *none[3:]]]
    assert narrowed("last_n", 2) == [none[:4] + [5, 5], [4, 5, *none[2:]], [-100, 5, 3, *none[3:]]]


@pytest.mark.parametrize("translator", ["marian", "nllb"])
@pytest.mark.parametrize(
    ("positions", "last_n"), [("last_token", None), ("last_word", None), ("last_n", 3), ("all", None)]
)
def test_narrowed_is_what_the_collator_makes(composed, translator, positions, last_n):
    _, processor = composed("gated", translator)
    rows = list(make_rows(processor, 12))
    expected = LastTokenCollator(processor, positions, last_n)(rows)["labels"]
    collator = LastTokenCollator(processor, "all")
    whole = collator(rows)["labels"]
    assert torch.equal(narrow_labels(whole, positions, last_n, collator.word_masks), expected)


def test_the_trainer_learns_all_tokens_first(trainer):
    made = trainer(loss_curriculum=0.5)
    seen = []
    step = made.training_step

    def recorded(model, inputs, *rest):
        tokens = (inputs["decoder_attention_mask"] == 1).sum()
        seen.append(bool((inputs["labels"] != -100).sum() == tokens))
        return step(model, inputs, *rest)

    made.training_step = recorded
    made.train()
    assert seen == [True, True, False, False]
