"""Training a TALL: the adapters, what may be pretrained or added before, and what follows the losses."""

from .arguments import TALLTrainingArguments
from .light import load_light
from .trainer import TALLTrainer


__all__ = ["TALLTrainer", "TALLTrainingArguments", "load_light"]
