"""TranslatorOnly: asks a TALL without its LLM, and refuses any other."""

import parts
import pytest
import torch
from typer.testing import CliRunner

from tall_hf import TALLForCausalLM, compose, load_light
from tall_hf.cli import app
from tall_hf.components import has_llm_layers
from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.tall import TALL
from tall_hf.evaluation.approaches.translator_only import TranslatorOnly
from tall_hf.training.light import save_light


QUESTIONS = [
    Question(text, "בבוקר", translation) for text, translation in zip(parts.SENTENCES, parts.TRANSLATIONS, strict=True)
]


def test_it_answers_as_its_model_does(part_folders):
    made = compose(**part_folders(), source_bridge="gated", leave_out_llm=True)
    approach = TranslatorOnly(lambda: made)
    assert (approach.name, approach.protocols) == ("translator_only", ("clean", "paper"))
    answers = approach.answer(QUESTIONS, "clean")
    assert answers == TALL(lambda: made).answer(QUESTIONS, "clean")
    torch.manual_seed(1)
    sampled = approach.answer(QUESTIONS, "paper")
    torch.manual_seed(1)
    assert sampled == TALL(lambda: made).answer(QUESTIONS, "paper")


def test_a_model_with_an_llm_is_refused(composed):
    approach = TranslatorOnly(lambda: composed("gated"))
    for ask in (approach.settings, lambda: approach.answer(QUESTIONS, "clean")):
        with pytest.raises(ValueError, match="an LLM of 2 layers. Run `tall compose` .* `--leave-out-llm`"):
            ask()


def test_a_model_without_a_source_path_is_refused(part_folders):
    made = compose(**part_folders(), source_bridge="none", leave_out_llm=True)
    with pytest.raises(ValueError, match="source_bridge='none'"):
        TranslatorOnly(lambda: made).settings()


def test_a_light_checkpoint_is_composed_without_the_llm_again(part_folders, tmp_path):
    model, processor = compose(**part_folders(), source_bridge="gated", leave_out_llm=True)
    with torch.no_grad():
        model.encoder.gate += 0.5
    save_light(model, processor, tmp_path)
    again, _ = load_light(tmp_path)
    assert not has_llm_layers(again.config)
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_the_command_composes_one(part_folders, tmp_path):
    folders = part_folders()
    arguments = [f"--{role.replace('_', '-')}={folder}" for role, folder in folders.items()]
    result = CliRunner().invoke(app, ["compose", *arguments, "--leave-out-llm", f"--output={tmp_path / 'made'}"])
    assert result.exit_code == 0, result.output
    model = TALLForCausalLM.from_pretrained(tmp_path / "made")
    assert not has_llm_layers(model.config)
    assert model.config.source_bridge == "gated"
