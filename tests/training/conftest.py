"""Fixtures of the training tests: tiny models and what trains them."""

import pytest
from trainings import SHORT, make_rows, without_dropout

from tall_hf import TALLTrainer, TALLTrainingArguments


@pytest.fixture
def arguments(tmp_path):
    """`arguments(**settings)` are TALLTrainingArguments of a training of four steps without evaluation or saving."""
    return lambda **settings: TALLTrainingArguments(**{"output_dir": str(tmp_path / "out"), **SHORT, **settings})


@pytest.fixture
def trainer(fresh, arguments):
    """`trainer(rows=..., eval_rows=..., **settings)` trains a fresh tiny model, with a gated bridge and no dropout."""

    def build(rows=16, eval_rows=0, model=None, dropout=False, source_fusion="last", **settings):
        own, processor = fresh("gated", source_fusion=source_fusion)
        model = model or own
        if not dropout:
            without_dropout(model)
        return TALLTrainer(
            model=model,
            args=arguments(**settings),
            train_dataset=make_rows(processor, rows),
            eval_dataset=make_rows(processor, eval_rows, seed=1) if eval_rows else None,
            processing_class=processor,
        )

    return build
