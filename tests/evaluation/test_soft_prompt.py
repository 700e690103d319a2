"""Soft prompt: words to learn that come back as the missing word, a prompt that lowers the loss, padding, resuming."""

import json
import weakref

import pytest
import torch
from texts import world_text
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Trainer

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.causal_training import TuningRecipe, WordCollator
from tall_hf.evaluation.approaches.language_model import LanguageModel
from tall_hf.evaluation.approaches.soft_prompt import SoftPrompt, new_words
from tall_hf.evaluation.build import model_loader
from tall_hf.microworld import World, component_path


RECIPE = TuningRecipe(learning_rates=(1e-2,), losses=("last_word",), batch_size=8, max_steps=12, evaluations=3)
ENGLISH = {record.text: record.english for record in World().records(0)[0]}
TRAINING = world_text(48, 16, kind="same_order")
QUESTIONS = [
    Question(row["truncated"], row["missing_word"], row["translation"]) for row in TRAINING.validation.select(range(6))
]


class Translator:
    """What of a TALL is asked."""

    def __init__(self, translate):
        self._translate = translate

    def translate(self, texts, processor):
        return self._translate(texts)


@pytest.fixture
def make():
    # A language model that does not know the facts, so that there is something to learn.
    llm = model_loader(AutoModelForCausalLM, component_path("llm_permuted"))
    hr_lr = model_loader(AutoModelForSeq2SeqLM, component_path("hr_lr"))

    def build(translate=lambda texts: [f"{ENGLISH[text]}." for text in texts], **options):
        def load_tall():
            return Translator(translate), None

        return SoftPrompt(llm, hr_lr, load_tall, **{"recipe": RECIPE, "prompt_length": 4, **options})

    return build


def test_it_learns_and_a_second_fit_loads(make, tmp_path, monkeypatch):
    approach = make()
    learned = approach.fit(TRAINING, tmp_path)
    assert learned["sentences"] == 48 and 0 <= learned["without_a_target"] <= 5
    assert learned["validation_loss"] < learned["loss_before"]
    assert learned["trained_parameters"] == 4 * approach.model.llm.config.hidden_size
    answers = approach.answer(QUESTIONS, "clean")
    assert all(answer.words and answer.translation for answer in answers)
    assert approach.answer(QUESTIONS[:1], "paper")[0].words

    again = make(translate=lambda texts: pytest.fail("it looks for words again"))
    monkeypatch.setattr(Trainer, "train", lambda *args, **kwargs: pytest.fail("it trains again"))
    assert again.fit(TRAINING, tmp_path) == learned
    assert again.answer(QUESTIONS, "clean") == answers


def test_the_tall_is_let_go_before_the_training_and_by_close(make, tmp_path, monkeypatch):
    approach, held = make(), []
    load = approach.load_tall

    def load_tall():
        tall = load()
        held.append(weakref.ref(tall[0]))
        return tall

    approach.load_tall = load_tall
    train = Trainer.train

    def watched(self, *args, **kwargs):
        assert held[0]() is None
        return train(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train", watched)
    approach.fit(TRAINING, tmp_path)
    approach._translate([TRAINING.train["sentence"][0]])
    assert len(held) == 2 and held[1]() is not None
    approach.close()
    assert held[1]() is None


def test_the_word_to_learn_comes_back_as_the_missing_word(make, tmp_path):
    approach = make()
    rows = approach._targets(TRAINING.train, tmp_path)
    known = {row["translation"].rstrip("."): row["missing_word"] for row in TRAINING.train}
    returned = approach.back([f"{row['text']} {row['word']}" for row in rows])
    assert len(rows) >= 43
    for row, text in zip(rows, returned, strict=True):
        assert text.split()[-1] == known[row["text"]]


def test_a_sentence_whose_word_never_comes_back_is_dropped(make, tmp_path):
    rows = TRAINING.train.select(range(6)).to_list()
    rows[1]["missing_word"] = rows[4]["missing_word"] = "אחרת"
    found = make()._targets(type(TRAINING.train).from_list(rows), tmp_path)
    assert len(found) == 4
    with pytest.raises(ValueError, match="none of 1 train sentences"):
        make(max_sentences=1).fit(
            type(TRAINING)(type(TRAINING.train).from_list(rows[1:2]), TRAINING.validation, "x"), tmp_path / "none"
        )


def test_words_are_looked_for_once_after_an_interruption(make, tmp_path, monkeypatch):
    monkeypatch.setattr("tall_hf.evaluation.approaches.soft_prompt._SENTENCES_A_FILE", 8)
    asked = []

    def translate(texts, dies=False):
        if dies and len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(texts)
        return [ENGLISH[text] for text in texts]

    with pytest.raises(KeyboardInterrupt):
        make(translate=lambda texts: translate(texts, dies=True)).fit(TRAINING, tmp_path)
    make(translate=translate).fit(TRAINING, tmp_path)
    texts = [text for batch in asked for text in batch]
    assert len(texts) == len(set(texts)) == 48 + 16


def test_an_interrupted_training_ends_as_an_undisturbed_one(make, tmp_path, monkeypatch):
    undisturbed = make()
    expected = undisturbed.fit(TRAINING, tmp_path / "undisturbed")
    step, seen = Trainer.training_step, []

    def dying(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        make().fit(TRAINING, tmp_path / "killed")
    resumed = make()
    learned = resumed.fit(TRAINING, tmp_path / "killed")
    assert len(seen) == 7 + 8
    assert {**learned, "seconds": 0} == {**expected, "seconds": 0}
    assert torch.equal(resumed._prompt, undisturbed._prompt)


@pytest.mark.parametrize("llm", ["qwen2", "bloom", "gpt2", "opt"])
def test_a_prompt_is_read_as_peft_reads_it_whatever_the_padding(part, llm):
    peft = pytest.importorskip("peft")
    model, tokenizer = model_loader(AutoModelForCausalLM, part(llm))()
    prompt = torch.randn(3, model.get_input_embeddings().weight.shape[1])
    rows = [{"text": "Dana lives", "word": "in"}, {"text": "The girl reads a book about a big", "word": "sea"}]
    ours = LanguageModel(model, tokenizer, prompt)
    alone = [ours.log_probabilities([row["text"]], [row["word"]])[0] for row in rows]
    together = ours.log_probabilities([row["text"] for row in rows], [row["word"] for row in rows])
    assert together == pytest.approx(alone, abs=1e-4)
    ids = [tokenizer(row["text"])["input_ids"] for row in rows]
    logits = [ours._read(*ours._batch([row], 1), logits_to_keep=1)[0][0, -1] for row in ids]

    tuned = peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=prompt.shape[1])
    )
    tuned.prompt_encoder["default"].embedding.weight.data.copy_(prompt)
    batch = WordCollator(tokenizer, "last_word")(rows)
    with torch.no_grad():
        theirs = tuned.eval()(**batch).logits
    for i, row in enumerate(ids):
        assert torch.allclose(theirs[i, 3 + len(row) - 1], logits[i], atol=1e-4)


def test_new_words():
    assert new_words("Dana's car is red, very red.", "Dana's car") == ["red", "very", "is"]
    assert new_words("Dana lives", "Dana lives in") == []


def test_bad_input(make, tmp_path):
    with pytest.raises(ValueError, match="run `tall prepare TEXT"):
        make().fit(None, tmp_path)
    with pytest.raises(RuntimeError, match="call `fit`"):
        make().answer(QUESTIONS, "clean")


def test_settings_stand_for_the_prompts_length(make):
    settings = [make(prompt_length=length).settings() for length in (4, 5)]
    assert settings[0] != settings[1]
    assert settings[0] == json.loads(json.dumps(settings[0]))
