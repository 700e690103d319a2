"""What `tall fusion train` does beside any training by command: rows of answers, and MindMerger's repeated source."""

import os
from dataclasses import dataclass, field

from tall_hf.data.examples import load_prepared_examples
from tall_hf.kinds import LAYER_FUSION
from tall_hf.yaml_files import read_mapping

from .adapter_run import TrainingRun
from .arguments import LayerFusionTrainingArguments
from .layer_fusion import LayerFusionTrainer
from .settings import RunSettings


@dataclass(frozen=True)
class LayerFusionRunSettings(RunSettings):
    """What `tall fusion train` needs beside LayerFusionTrainingArguments."""

    repeat_source: bool | None = field(
        default=None,
        metadata={
            "help": "Let the LLM read the source in its own tokens too, from now on (MindMerger's second stage); as the model "
            "was composed when not given."
        },
    )


class LayerFusionRun(TrainingRun):
    """A training of a LayerFusionForCausalLM, by `tall fusion train`."""

    kind = LAYER_FUSION
    settings_class = LayerFusionRunSettings
    arguments_class = LayerFusionTrainingArguments
    trainer_class = LayerFusionTrainer

    @classmethod
    def read_settings(cls, config: str | os.PathLike | None, **overrides):
        for name in (*({} if config is None else read_mapping(config)), *overrides):
            if str(name).startswith(("lora_", "unfreeze")):
                raise ValueError(
                    f"`{name}` is a setting of `tall train`: of this model encoder and LLM stay frozen, as in its paper. Leave it "
                    "out; an LLM that was fine-tuned and saved before may be composed as any other."
                )
        return super().read_settings(config, **overrides)

    def load_rows(self, model, processor):
        if self.settings.repeat_source is not None:
            processor.repeat_source = self.settings.repeat_source  # which the trained model is saved with
        return load_prepared_examples(self.settings.dataset, processor)
