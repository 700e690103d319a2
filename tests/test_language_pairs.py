"""A user's language found among the translators' codes, and a pair looked up on a Hub of ours; a pair that is not there."""

import json

import pytest
from typer.testing import CliRunner

from tall_hf.cli import app
from tall_hf.language_pairs import (
    M2M100_CODES,
    MBART50_CODES,
    NLLB_CODES,
    TO_LANGUAGE_CODE,
    find_language,
    find_translators,
)


@pytest.mark.parametrize(
    "text", ["he", "heb", "heb_Hebr", "heb-hebr", "he_IL", "he-IL", "iw", "Hebrew", "HEBREW", " hebrew "]
)
def test_a_language_is_found_whatever_it_is_called(text):
    language = find_language(text)
    assert (language.code, language.name) == ("he", "Hebrew")
    assert (language.nllb, language.m2m100, language.mbart50) == (("heb_Hebr",), "he", "he_IL")


@pytest.mark.parametrize(
    ("text", "code", "nllb", "m2m100", "mbart50"),
    [
        ("sw", "sw", ["swh_Latn"], "sw", "sw_KE"),
        ("swa", "sw", ["swh_Latn"], "sw", "sw_KE"),
        ("swh", "sw", ["swh_Latn"], "sw", "sw_KE"),
        ("Arabic", "ar", ["arb_Arab"], "ar", "ar_AR"),
        ("arz", "arz", ["arz_Arab"], None, None),
        ("zh", "zh", ["zho_Hans", "zho_Hant"], "zh", "zh_CN"),
        ("zh-Hant", "zh", ["zho_Hant"], "zh", "zh_CN"),
        ("Mandarin", "zh", ["zho_Hans", "zho_Hant"], "zh", "zh_CN"),
        ("cmn", "zh", ["zho_Hans", "zho_Hant"], "zh", "zh_CN"),
        ("zh-TW", "zh", ["zho_Hant"], "zh", "zh_CN"),
        ("zh_CN", "zh", ["zho_Hans", "zho_Hant"], "zh", "zh_CN"),
        ("jw", "jv", ["jav_Latn"], "jv", None),
        ("nso", "nso", ["nso_Latn"], "ns", None),
        ("br", "br", [], "br", None),
        ("aa", "aa", [], None, None),
    ],
)
def test_what_the_families_call_it(text, code, nllb, m2m100, mbart50):
    language = find_language(text)
    assert (language.code, list(language.nllb), language.m2m100, language.mbart50) == (code, nllb, m2m100, mbart50)


def test_every_code_and_name_of_transformers_is_found():
    assert [code for code in NLLB_CODES if find_language(code).nllb != (code,)] == []
    assert [code for code in M2M100_CODES["m2m100"] if find_language(code).m2m100 != code] == []
    assert [code for code in MBART50_CODES if find_language(code).mbart50 != code] == []
    assert all(find_language(name).name for name in TO_LANGUAGE_CODE)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Hebrw", "Near are Hebrew"),
        ("xx", "Give an ISO 639 code"),
        ("", "Give an ISO 639 code"),
        ("gom", "without a code of two letters only those of NLLB-200"),
    ],
)
def test_an_unknown_language_is_named(text, hint):
    with pytest.raises(ValueError) as error:
        find_language(text)
    assert f"{text!r} is no language known here" in str(error.value) and hint in str(error.value)


def test_a_script_that_is_not_there_does_not_become_another():
    with pytest.raises(
        ValueError, match="'srp_Latn': NLLB-200 does not have this language in that script, but as srp_Cyrl"
    ):
        find_language("srp_Latn")
    assert find_language("br_Latn").nllb == ()  # not in NLLB-200 at all, and in M2M100 without a script


def test_names_are_given_without_a_network(monkeypatch):
    found = find_translators("he")
    assert [one.repo_id for one in found.lr_hr] == [
        "Helsinki-NLP/opus-mt-tc-big-he-en",
        "Helsinki-NLP/opus-mt-he-en",
        "Helsinki-NLP/opus-mt-mul-en",
    ]
    assert [one.repo_id for one in found.hr_lr] == ["Helsinki-NLP/opus-mt-tc-big-en-he", "Helsinki-NLP/opus-mt-en-he"]
    assert {one.exists for one in found.lr_hr + found.hr_lr} == {None} and not found.asked
    assert "Helsinki-NLP/opus-mt-jap-fr" in [one.repo_id for one in find_translators("ja", "fr").lr_hr]
    with pytest.raises(ValueError, match=r"'he' and 'iw' are both Hebrew \(he\)"):
        find_translators("he", "iw")


# --- on a Hub ---------------------------------------------------------------------------------------------------------


def languages(*arguments):
    result = CliRunner().invoke(app, ["languages", *arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def repository(hub):
    """`repository(name, files, languages)` makes a repository of Helsinki-NLP; they are gone after the test."""
    from hub.repositories import Repository

    before = dict(hub.repositories)

    def make(name, files=("model.safetensors",), languages=()):
        repo_id = f"Helsinki-NLP/{name}"
        made = hub.repositories["model", repo_id] = Repository("model", repo_id)
        card = f"---\nlanguage: {json.dumps(list(languages))}\n---\n".encode()
        contents = {"README.md": card, "config.json": b"{}", **dict.fromkeys(files, b"0")}
        blobs = {path: hub.storage.blob(content) for path, content in contents.items()}
        made.commit("main", "somebody", "weights", "", blobs)

    yield make
    hub.repositories.clear()
    hub.repositories.update(before)


def test_a_pair_that_is_there(hub, repository):
    repository("opus-mt-tc-big-he-en")
    repository("opus-mt-en-he", files=["pytorch_model.bin"])
    repository("opus-mt-mul-en", languages=["ca", "he"])
    hub.requests.clear()
    result = languages("Hebrew", "--hub")
    assert result.exit_code == 0, result.output
    compose = (
        "tall compose --lr-hr Helsinki-NLP/opus-mt-tc-big-he-en --llm ... --hr-lr Helsinki-NLP/opus-mt-en-he --output"
    )
    assert compose in result.output
    assert "Helsinki-NLP/opus-mt-en-he: weights as pickles only." in result.output
    assert "--source-lang heb_Hebr --pivot-lang eng_Latn" in result.output
    assert "There is no OPUS-MT" not in result.output
    assert hub.requests["GET info"] == 5 and hub.unknown == []


def test_one_direction_alone(repository):
    repository("opus-mt-yo-en")
    result = languages("yor", "--hub")
    assert result.exit_code == 0
    assert (
        "There is no OPUS-MT translator from English (en) into Yoruba (yo): looked for "
        "Helsinki-NLP/opus-mt-tc-big-en-yo, Helsinki-NLP/opus-mt-en-yo." in result.output
    )
    assert "For the other direction there is Helsinki-NLP/opus-mt-yo-en." in result.output
    assert "Take a multilingual translator for the rest" in result.output
    assert "--source-lang yor_Latn --pivot-lang eng_Latn" in result.output


def test_a_translator_of_many_languages_counts_where_its_card_names_the_language(repository):
    repository("opus-mt-mul-en", languages=["ca", "sm"])
    assert find_translators("sm", ask_hub=True).lr_hr[-1].exists
    assert not find_translators("tw", ask_hub=True).lr_hr[-1].exists


def test_a_pair_that_nobody_translates(hub):
    result = languages("kw", "--hub")
    assert result.exit_code == 1
    assert "There is no OPUS-MT translator from kw into English (en)" in result.output
    assert "NLLB-200, M2M100 and mBART-50 do not have both languages either. Look on the Hub" in result.output


def test_a_hub_that_cannot_be_reached(hub, monkeypatch):
    from huggingface_hub import constants

    with hub.failing("GET info", status=403):
        result = languages("he", "--hub")
    assert result.exit_code == 1
    assert "The Hub cannot be asked whether Helsinki-NLP/opus-mt-tc-big-he-en exists" in result.output
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = languages("he", "--hub")
    assert result.exit_code == 1 and "(OfflineModeIsEnabled)" in result.output
    result = languages("he")
    assert result.exit_code == 0 and "The Hub was not asked" in result.output and "not asked" in result.output
