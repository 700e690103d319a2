"""TALLTrainingArguments: the defaults, and what is refused or warned of."""

import pytest

from tall_hf import TALLTrainingArguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_positions": "last"}, "loss_positions.*last_word.*'last'"),
        ({"last_n": 2}, "last_n"),
        ({"loss_positions": "last_n"}, "last_n"),
        ({"loss_positions": "last_n", "last_n": 0}, "last_n.*at least 1.*0"),
        ({"learning_rate": -1e-3}, "learning_rate.*-0.001"),
        ({"alignment_learning_rate": "fast"}, "alignment_learning_rate.*'fast'"),
        ({"loss_curriculum": 1.0}, "loss_curriculum.*below 1"),
        ({"loss_curriculum": 0.5, "loss_positions": "all"}, "loss_curriculum"),
        ({"loss_curriculum": 0.5, "loss_positions": "continuation"}, "loss_curriculum.*leave it at 0"),
        ({"frozen_dtype": "int8"}, "frozen_dtype.*bfloat16.*'int8'"),
        ({"early_stopping_patience": 2}, "early_stopping_patience.*eval_strategy"),
        ({"bf16_full_eval": True}, "would round the trained weights"),
        ({"max_steps": 0}, "Nothing would be trained with max_steps=0"),
        ({"max_steps": -1, "num_train_epochs": 0}, "num_train_epochs=0"),
        ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps` must be a whole number of at least 1"),
        ({"train_sampling_strategy": "bogus"}, "`train_sampling_strategy` must be one of 'random'"),
        ({"early_stopping_patience": 0, "eval_strategy": "steps"}, "early_stopping_patience.*at least 1"),
        ({"push_to_hub": True}, "light_checkpoints"),
    ],
)
def test_bad_arguments_are_named(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(**settings)


def test_defaults_are_the_papers(tmp_path):
    args = TALLTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (args.learning_rate, args.max_grad_norm, args.num_train_epochs) == (5e-5, 1.0, 5)
    assert args.lr_scheduler_type == "cosine"
    assert args.load_best_model_at_end
    assert args.metric_for_best_model == "loss"
    assert not args.greater_is_better
    assert args.bf16 is False


@pytest.mark.parametrize(("settings", "said"), [({"bf16": True}, True), ({"bf16": False}, False), ({}, False)])
def test_bfloat16_on_a_processor_without_it_is_warned_of(arguments, monkeypatch, settings, said):
    monkeypatch.setattr("tall_hf.measuring.device.processor_computes_bfloat16", lambda: False)
    warned = []
    monkeypatch.setattr("tall_hf.measuring.device.logger.warning", warned.append)
    assert arguments(**settings).bf16 is settings.get("bf16", False)
    assert any("leaving out `bf16`" in one for one in warned) is said
