"""The controls of the little world: what they take away from a TALL, and when the table says that they know too much."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from tall_hf.microworld import World, component_path
from tall_hf.microworld.demo import Recipe


sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import microworld_controls  # noqa: E402


COMPONENTS = component_path("llm").parent
TEXTS = {f"source {number}": "Dana Levi lives in the city of" for number in range(200)}


def test_the_random_llm_is_another_of_the_same_architecture(tmp_path):
    torch.manual_seed(0)
    folder = microworld_controls.llm_folder("random LLM", COMPONENTS, tmp_path)
    ours, embedded = (AutoModel.from_pretrained(one).state_dict() for one in (folder, component_path("llm")))
    assert {name: weight.shape for name, weight in ours.items()} == {
        name: weight.shape for name, weight in embedded.items()
    }
    assert not torch.equal(ours["embed_tokens.weight"], embedded["embed_tokens.weight"].float())
    assert microworld_controls.llm_folder("gated", COMPONENTS, tmp_path) == component_path("llm")


def test_a_bad_translation_has_as_many_words_of_which_half_are_drawn():
    texts = TEXTS | {"other": "the red car"}
    spoiled = microworld_controls.spoiled(texts)
    assert spoiled == microworld_controls.spoiled(dict(reversed(texts.items())))
    pairs = [pair for name, text in TEXTS.items() for pair in zip(text.split(), spoiled[name].split(), strict=True)]
    known = set(" ".join(texts.values()).split())
    assert {word for _, word in pairs} <= known
    # Half are drawn, and one in ten of those is drawn as it was.
    expected = 0.5 * (1 - 1 / len(known))
    assert sum(old != new for old, new in pairs) / len(pairs) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("variant", ["gated", "reference translation", "bad translation"])
def test_a_variant_is_trained_and_asked_with_its_own_translations(variant, monkeypatch):
    world = World()
    records, held_out = world.records(0)
    given = {record.truncated: f"translated {record.english_truncated}" for record in (*records, *held_out)}
    read = {}
    monkeypatch.setattr(
        microworld_controls,
        "training_rows",
        lambda processor, asked, translations: read.update(trained=list(translations)),
    )
    monkeypatch.setattr(microworld_controls, "train_adapters", lambda *arguments: None)

    def predicted(model, processor, asked, translations):
        read["asked"] = list(translations)
        return [record.missing_word if index % 2 else "" for index, record in enumerate(held_out)]

    monkeypatch.setattr(microworld_controls, "predict_words", predicted)
    counts = microworld_controls.run(variant, 0, Recipe(), COMPONENTS, world, World(), given)
    assert set(counts[variant]) == set(world.relations)
    assert sum(right for right, _ in counts[variant].values()) == len(held_out) // 2
    assert sum(asked for _, asked in counts[variant].values()) == len(held_out)
    expected = {
        "gated": given,
        "reference translation": {record.truncated: record.english_truncated for record in (*records, *held_out)},
        "bad translation": microworld_controls.spoiled(given),
    }[variant]
    assert read == {
        "trained": [expected[record.truncated] for record in records],
        "asked": [expected[record.truncated] for record in held_out],
    }


@pytest.mark.parametrize(("right", "is_named"), [(5, False), (30, True)])
def test_a_control_that_answers_is_named(right, is_named):
    world = World()
    run = {
        "gated": {name: [74, 75] for name in world.relations},
        "no LLM": {name: [right if name == "city" else 5, 75] for name in world.relations},
    }
    table = microworld_controls.report(world, [run], seeds=1)
    assert f"| city | same_order | 75 | {microworld_controls.chance_level(world, 'city', 1):.3f} | 0.987 [" in table
    verdict = table.splitlines()[-1]
    assert (
        verdict.endswith("lies below twice it: no LLM on city.") if is_named else verdict.startswith("Every control")
    )


def test_without_controls_nothing_is_said_of_them():
    world = World()
    run = {"gated": {name: [74, 75] for name in world.relations}}
    assert "Without the controls: random LLM and no LLM" in microworld_controls.report(world, [run], seeds=1)
