"""Licences joined from those of the parts: what follows, what conflicts, and what nobody knows."""

import json

import pytest
from huggingface_hub import HfApi

from tall_hf.cards import look_up_licenses
from tall_hf.cards.licenses import join_licenses


def licenses(lr_hr, llm, hr_lr):
    return {"lr_hr": lr_hr, "llm": llm, "hr_lr": hr_lr}


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("apache-2.0", "apache-2.0", "apache-2.0"), "apache-2.0"),
        (("mit", "apache-2.0", "mit"), "apache-2.0"),
        (("cc-by-4.0", "apache-2.0", "apache-2.0"), "cc-by-4.0"),
        (("cc0-1.0", "mit", "cc0-1.0"), "mit"),
        (("apache-2.0", "bigscience-bloom-rail-1.0", "apache-2.0"), "bigscience-bloom-rail-1.0"),
        (("cc-by-sa-4.0", "mit", "cc-by-4.0"), "cc-by-sa-4.0"),
    ],
)
def test_licences_that_go_together_leave_the_most_demanding(parts, joined):
    license = join_licenses(licenses(*parts))
    assert license.identifier == joined
    assert license.warnings == []


def test_a_non_commercial_part_binds_the_whole_and_is_warned_of():
    license = join_licenses(licenses("cc-by-nc-4.0", "apache-2.0", "cc-by-nc-4.0"))
    assert license.identifier == "cc-by-nc-4.0"
    [warning] = license.warnings
    assert "the translator in (`cc-by-nc-4.0`), the translator back (`cc-by-nc-4.0`) forbids commercial use" in warning


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("cc-by-nc-4.0", "bigscience-bloom-rail-1.0", "mit"), "may not go together"),
        (("cc-by-sa-4.0", "gpl-3.0", "mit"), "may not go together"),
        (("cc-by-nd-4.0", "mit", "mit"), "forbids passing on what is made of it"),
    ],
)
def test_conflicts_are_left_to_people(parts, said):
    license = join_licenses(licenses(*parts))
    assert license.identifier == "other"
    assert any(said in warning for warning in license.warnings)


@pytest.mark.parametrize("unknown", [None, "unknown"])
def test_what_nobody_knows_is_said_and_not_guessed(unknown):
    license = join_licenses(licenses("mit", unknown, "mit"))
    assert license.identifier == "unknown"
    assert "the licence of the language model is" in license.warnings[0]
    chosen = join_licenses(licenses("mit", unknown, "mit"), "mit")
    assert (chosen.identifier, len(chosen.warnings)) == ("mit", 1)


@pytest.mark.parametrize(
    ("parts", "chosen", "is_warned"),
    [
        (("mit", "apache-2.0", "mit"), "apache-2.0", False),
        (("mit", "apache-2.0", "mit"), "mit", True),
        (("mit", "apache-2.0", "mit"), "gpl-3.0", False),
        (("gpl-3.0", "mit", "mit"), "mit", True),
        (("gpl-3.0", "mit", "mit"), "gpl-3.0", False),
    ],
)
def test_what_the_publisher_chooses_stays_with_a_warning_where_a_part_asks_for_more(parts, chosen, is_warned):
    license = join_licenses(licenses(*parts), chosen)
    assert license.identifier == chosen
    assert any("chose" in warning for warning in license.warnings) == is_warned


@pytest.mark.parametrize("name", ["Apache 2.0", "MIT", "", "mit\nlicense: gpl"])
def test_what_is_no_identifier_is_refused(name):
    with pytest.raises(ValueError, match="is no licence identifier"):
        join_licenses(licenses("mit", "mit", "mit"), name)


def test_licences_are_looked_up_at_the_parts_revisions_and_what_fails_is_left_out(
    hub, tiny_config, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr("tall_hf.cards.licenses.logger.warning", said.append)
    api, components = HfApi(token=hub.token), {}
    cards = {"lr_hr": "---\nlicense: cc-by-4.0\n---\n", "llm": "# No metadata\n", "hr_lr": "---\nlicense: mit\n---\n"}
    for role, card in cards.items():
        name = f"{hub.organization}/part-{role.replace('_', '-')}"
        api.create_repo(name)
        commit = api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=name)
        components[role] = {"name_or_path": name, "revision": commit.oid}
    # A later card has another licence, and the model was made of the earlier one.
    name = components["lr_hr"]["name_or_path"]
    api.upload_file(path_or_fileobj=b"---\nlicense: gpl-3.0\n---\n", path_in_repo="README.md", repo_id=name)
    components["hr_lr"]["name_or_path"] = f"{hub.organization}/vanished"
    config = tiny_config().to_dict() | {"components": components}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")

    assert look_up_licenses(tmp_path, token=hub.token) == {"lr_hr": "cc-by-4.0"}
    assert said == [
        f"The card of {hub.organization}/part-llm names no licence.",
        f"The licence of {hub.organization}/vanished could not be looked up (RepositoryNotFoundError).",
    ]
