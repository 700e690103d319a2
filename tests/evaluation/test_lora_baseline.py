"""LoRA as an approach: as many weights as a TALL trains, learns, and answers merged."""

import json

import peft
import pytest
import torch
from texts import world_text
from transformers import AutoModelForCausalLM, Trainer

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.causal_training import TuningRecipe, words_of
from tall_hf.evaluation.approaches.language_model import encode_words
from tall_hf.evaluation.approaches.lora import LoRA, frequent_tokens
from tall_hf.evaluation.build import model_loader


RECIPE = TuningRecipe(learning_rates=(1e-2,), losses=("last_word",), batch_size=8, max_steps=12, evaluations=3)
TRAINING = world_text(48, 16)
QUESTIONS = [Question(row["truncated"], row["missing_word"]) for row in TRAINING.validation.select(range(4))]


@pytest.fixture
def load(part):
    return lambda family="qwen2": model_loader(AutoModelForCausalLM, part(family))


@pytest.mark.parametrize("llm", ["qwen2", "bloom", "gpt2", "gemma"])
def test_it_has_as_many_weights_as_a_tall_within_half_a_rank(composed, load, llm):
    model, _ = composed("gated", llm=llm)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    approach = LoRA(load(llm), trained)
    count, of_rank_one = (
        sum(p.numel() for p in one.trainable(load(llm)()[0]).parameters() if p.requires_grad)
        for one in (approach, LoRA(load(llm), 1))
    )
    assert abs(count - trained) <= of_rank_one / 2
    assert count % of_rank_one == 0


@pytest.mark.parametrize("llm", ["qwen2", "bloom", "gpt2", "gemma"])
def test_embeddings_of_the_tokens_of_the_text_learn_within_the_size(load, llm, tmp_path):
    approach = LoRA(load(llm), 20_000, recipe=RECIPE)
    before = load(llm)()[0].get_input_embeddings().weight
    learned = approach.fit(TRAINING, tmp_path)
    assert abs(learned["trained_parameters"] - 20_000) < 2_000
    after = approach.load_model()[0]
    tied = after.get_output_embeddings().weight is after.get_input_embeddings().weight
    at_most = 10_000 // before.shape[1] // (1 if tied else 2)
    tokenizer = load(llm)()[1]
    expected = frequent_tokens(tokenizer, words_of(TRAINING, "lora")[0])[:at_most]
    changed = {
        i
        for i, (a, b) in enumerate(zip(before, after.get_input_embeddings().weight, strict=True))
        if not torch.equal(a, b)
    }
    end = {tokenizer.eos_token_id}  # where it is the padding too, the embedding gets no gradient
    assert changed - end == set(expected) - end


def test_untied_embeddings_and_head_both_learn_and_bfloat16_learns_in_float32(load, tmp_path, part):
    approach = LoRA(model_loader(AutoModelForCausalLM, part("qwen2"), dtype=torch.bfloat16), 20_000, recipe=RECIPE)
    approach.fit(TRAINING, tmp_path / "bf16")
    model = approach.trainable(approach.load()[0])
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}

    def untied():
        llm, tokenizer = load()()
        llm.config.tie_word_embeddings = False
        llm.lm_head.weight = torch.nn.Parameter(llm.lm_head.weight.detach().clone())
        return llm, tokenizer

    approach = LoRA(untied, 20_000, recipe=RECIPE)
    learned = approach.fit(TRAINING, tmp_path / "untied")
    assert abs(learned["trained_parameters"] - 20_000) < 2_000
    llm, before = approach.load_model()[0], untied()[0]
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        assert not torch.equal(getattr(llm, layer)().weight, getattr(before, layer)().weight)
    assert not torch.equal(llm.get_input_embeddings().weight, llm.get_output_embeddings().weight)


def test_what_learned_on_bfloat16_weights_is_merged_and_asked_in_float32(part, tmp_path):
    load = model_loader(AutoModelForCausalLM, part("qwen2"), dtype=torch.bfloat16)
    approach = LoRA(load, 20_000, recipe=RECIPE)
    approach.fit(TRAINING, tmp_path)
    llm, tokenizer = approach.load_model()
    assert {p.dtype for p in llm.parameters()} == {torch.float32}
    apart = peft.PeftModel.from_pretrained(load()[0].float(), tmp_path / "model").eval()
    inputs = tokenizer(TRAINING.train["truncated"][0], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(llm(**inputs).logits, apart(**inputs).logits)


def test_the_most_frequent_tokens_come_first_behind_the_end_of_text(load):
    tokenizer = load()()[1]
    tokens = frequent_tokens(tokenizer, words_of(TRAINING, "lora")[0])
    rows = _ids(tokenizer)
    counts = [sum(ids.count(token) for ids in rows) for token in tokens]
    assert tokens[0] == tokenizer.eos_token_id
    assert counts[1:] == sorted(counts[1:], reverse=True)
    assert set(tokens[1:]) == {token for ids in rows for token in ids}


def _ids(tokenizer):
    return encode_words(tokenizer, list(TRAINING.train["truncated"]), list(TRAINING.train["missing_word"]))[1]


def test_learning_lowers_the_validation_loss_and_a_second_fit_loads(load, tmp_path, monkeypatch):
    approach = LoRA(load(), 10_000, recipe=RECIPE)
    learned = approach.fit(TRAINING, tmp_path)
    assert learned["validation_loss"] < learned["loss_before"] - 0.5
    assert abs(learned["trained_parameters"] - 10_000) < 1_000
    assert (tmp_path / "model" / "adapter_model.safetensors").exists()
    assert not list((tmp_path / "model").glob("model*.safetensors"))  # the language model's own weights are not copied
    answers = approach.answer(QUESTIONS, "clean")
    assert not any("lora" in name for name, _ in approach.model.llm.named_parameters())
    frozen = LoRA(load(), 10_000, recipe=RECIPE)
    monkeypatch.setattr(Trainer, "train", lambda *args, **kwargs: pytest.fail("it trains again"))
    assert frozen.fit(TRAINING, tmp_path) == learned
    assert frozen.answer(QUESTIONS, "clean") == answers
    approach.close()
    assert approach.answer(QUESTIONS, "clean") == answers


def test_an_interrupted_fit_ends_as_an_undisturbed_one(load, tmp_path, monkeypatch):
    expected = LoRA(load(), 10_000, recipe=RECIPE).fit(TRAINING, tmp_path / "undisturbed")
    step, seen = Trainer.training_step, []

    def dying(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        LoRA(load(), 10_000, recipe=RECIPE).fit(TRAINING, tmp_path / "killed")
    learned = LoRA(load(), 10_000, recipe=RECIPE).fit(TRAINING, tmp_path / "killed")
    assert len(seen) == 7 + 8  # behind the checkpoint of step 4
    assert {**learned, "seconds": 0} == {**expected, "seconds": 0}


def test_settings_stand_for_the_size(load):
    settings = [LoRA(load(), count).settings() for count in (1_000, 2_000)]
    assert settings[0] != settings[1]
    assert settings[0] == json.loads(json.dumps(settings[0]))
