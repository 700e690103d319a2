"""What approaches are made of: dtypes and budgets of those that are trained, and where optional libraries are named."""

import sys

import pytest
import torch
from texts import world_text

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.build import APPROACHES, Parts, build_approaches


TRAINING = world_text(48, 16)


def made(name, **settings):
    parts = Parts(models={"tall": "x"}, llm="llm", hr_lr="hr_lr", training=TRAINING, **settings)
    [approach] = APPROACHES[name].make(parts)
    return approach


@pytest.mark.parametrize(("name", "computes_in_bf16"), [("fine_tuned_paper", False), ("fine_tuned", True)])
def test_fine_tuning_keeps_float32_weights_and_the_published_rate_computes_in_it(
    part, tmp_path, name, computes_in_bf16
):
    approach = made(name, dtype=torch.bfloat16)
    assert approach.recipe.bf16 == computes_in_bf16
    parts = Parts(models={"tall": "x"}, llm=str(part("qwen2")), dtype=torch.bfloat16)
    [approach] = APPROACHES[name].make(parts)
    assert approach.load()[0].dtype == torch.float32
    [direct] = APPROACHES["direct"].make(parts)
    assert direct.load()[0].dtype == torch.bfloat16


def test_the_soft_prompts_sentences_can_be_limited(composed, tmp_path):
    model, processor = composed("gated")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    parts = {"models": {"tall": str(tmp_path)}, "llm": "x", "hr_lr": "y"}
    for limit, expected in ((None, 20_000), (50, 50)):
        [approach] = APPROACHES["soft_prompt"].make(Parts(**parts, soft_prompt_sentences=limit))
        assert approach.max_sentences == expected


def test_a_budget_is_the_steps_of_the_full_training_and_a_quarter_of_it_each_trials():
    recipe = made("fine_tuned", budget_steps=100).recipe
    assert (recipe.max_steps, recipe.trial_steps) == (100, 25)
    assert made("fine_tuned", budget_steps=10_000).recipe.trial_steps == 200
    assert made("fine_tuned").recipe.max_steps is None
    assert made("fine_tuned", budget_batch_size=48).recipe.batch_size == 48
    assert made("fine_tuned_paper", budget_batch_size=48).recipe.batch_size == 6
    for name, expected in (("fine_tuned", True), ("fine_tuned_paper", False)):
        assert made(name, budget_group_by_length=True).recipe.group_by_length is expected


@pytest.mark.parametrize(
    ("training", "message"),
    [(None, "run `tall prepare TEXT .* pass `--dataset FOLDER`"), (world_text(8, 0), "`--validation-share` above 0")],
)
def test_what_a_training_lacks_is_said_alike(training, message):
    parts = Parts(models={"tall": "x"}, llm="llm", training=training)
    with pytest.raises(ValueError, match=f"The approach 'fine_tuned' cannot be asked: it .*{message}"):
        build_approaches(parts, ["fine_tuned"], ["clean"])


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    parts = Parts(models={"tall": "x"}, llm="llm", training=TRAINING)
    with pytest.raises(
        ValueError, match=r"'lora' cannot be asked: it needs peft; run `pip install 'tall-hf\[train\]'`"
    ):
        build_approaches(parts, ["lora"], ["clean"])


@pytest.mark.parametrize("name", ["majority", "ngram", "fine_tuned"])
def test_what_has_learned_nothing_does_not_answer(name):
    with pytest.raises(RuntimeError, match=f"`{name}` has learned nothing yet; call `fit` first"):
        made(name).answer([Question("Dana lives in", "Haifa")], "clean")
