"""The dataset card: counts, settings and the translator from prepare.json, the licence from who knows it."""

import pytest
from huggingface_hub import DatasetCard

from tall_hf.cards import dataset_card


REPO = "tall-tests/sentences-he"
TRANSLATOR = {"name_or_path": "Helsinki-NLP/opus-mt-tc-big-he-en", "revision": "0123abc"}


def test_the_card_tells_what_the_folder_holds_and_how_it_was_made(copied, edit):
    edit(copied.data / "prepare.json", lambda report: report["translation"].update(translator=TRANSLATOR))
    card = dataset_card(
        copied.data, repo_id=REPO, language="he", license="cc-by-4.0", source="Sentences | of *a* test."
    )
    data = card.data.to_dict()
    assert DatasetCard(str(card)).data.to_dict() == data
    assert (data["language"], data["license"], data["size_categories"]) == ("he", "cc-by-4.0", ["n<1K"])
    assert [part["path"] for part in data["configs"][0]["data_files"]] == ["data/train-*", "data/validation-*"]
    for text in (
        "| read | 12 |",
        "| left out: fewer than 2 words | 0 |",
        "| min words | 2 |",
        "| num beams | 1 |",
        "https://huggingface.co/Helsinki-NLP/opus-mt-tc-big-he-en/tree/0123abc",
        "Sentences &#124; of &#42;a&#42; test.",
        f'load_dataset("{REPO}")',
        "`truncated`",
        '<span dir="rtl">',
    ):
        assert text in card.text


def test_preparing_records_the_translator_and_the_card_tells_no_folder(left_behind):
    card = dataset_card(left_behind.data)
    assert "by a translator that is not on the Hub" in card.text
    assert str(left_behind.root.parent) not in str(card)
    assert card.data.license == "unknown"
    assert "Nobody has said what the licence of the text is" in card.text
    assert "load_dataset" not in card.text


def test_an_older_folder_may_be_told_its_translator(copied, edit):
    edit(copied.data / "prepare.json", lambda report: report["translation"].pop("translator"))
    assert "whose name was not recorded" in dataset_card(copied.data).text
    told = dataset_card(copied.data, translator="Helsinki-NLP/opus-mt-tc-big-he-en@0123abc")
    assert "opus-mt-tc-big-he-en/tree/0123abc" in told.text


@pytest.mark.parametrize(
    ("truncation", "said", "unsaid"),
    [
        ("last_word", "sentences, each without its last word, with", "nothing is"),
        ("random_word", "(in training, without all from a drawn word on)", "nothing is"),
        ("none", "sentences, whole in training and without their last word in validation, with", "each without"),
    ],
)
def test_the_card_tells_what_the_sentences_have_lost(copied, edit, truncation, said, unsaid):
    edit(copied.data / "prepare.json", lambda report: report["corpus"].update(truncation=truncation))
    text = dataset_card(copied.data).text
    assert said in text and unsaid not in text
    assert ("validation sentences lose their last word alone" in text) == (truncation != "last_word")


def test_what_cannot_be_is_refused(left_behind, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no prepare.json"):
        dataset_card(tmp_path)
    with pytest.raises(ValueError, match="is no licence identifier"):
        dataset_card(left_behind.data, license="Apache 2.0")
    with pytest.raises(ValueError, match="is no ISO 639 code"):
        dataset_card(left_behind.data, language="Hebrew")


def test_the_hub_accepts_the_card(hub, left_behind):
    dataset_card(left_behind.data, repo_id=REPO, language="he", license="mit").validate()
    assert hub.requests["POST validate-yaml"] == 1
