"""Fine-tuned: the whole language model learns the low-resource text, then continues it as `Direct` does."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tall_hf.fingerprints import model_fingerprint

from ..approach import Loader, TrainingText, check_fitted
from .causal_training import MODEL_FOLDER, TuningRecipe, train_causal, words_of
from .direct import Direct


# As published: one learning rate, the loss of every token, batches of 6.
PAPER_RECIPE = TuningRecipe(learning_rates=(2e-8,), losses=("all",), batch_size=6)


class FineTuned(Direct):
    """Train all weights of a causal language model on the low-resource sentences, and ask it as `Direct` does.

    It learns and answers in float32, whatever dtype `load` gives.

    Args:
        load: gives the pretrained language model with its head, and its tokenizer; see `model_loader`.
        name: in the table; "fine_tuned_paper" with `PAPER_RECIPE`.
        recipe: what to try and how long to train.
        num_beams: as for `Direct`.
    """

    def __init__(
        self,
        load: Loader,
        name: str = "fine_tuned",
        recipe: TuningRecipe | None = None,
        num_beams: int | None = None,
    ):
        super().__init__(load, name, num_beams)
        self.recipe = recipe or TuningRecipe()
        self._folder: Path | None = None

    def settings(self) -> dict[str, Any]:
        return {"llm": model_fingerprint(*self.load()), "num_beams": self.num_beams, **self.recipe.to_dict()}

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        train, validation = words_of(training, self.name)
        llm, tokenizer = self.load()
        self._device = llm.device
        max_length = getattr(llm.config.get_text_config(), "max_position_embeddings", None)
        del llm  # the trainings load their own
        learned = train_causal(
            lambda: self.trainable(self.load()[0]),
            tokenizer,
            train,
            validation,
            self.recipe,
            folder,
            max_length,
        )
        self._folder = folder / MODEL_FOLDER
        self._model = None
        return learned

    def trainable(self, llm: PreTrainedModel) -> nn.Module:
        """The model to train, made of a freshly loaded language model, in float32 where it learns."""
        return llm.float()

    def trained(self, folder: Path) -> tuple[PreTrainedModel, Any]:
        """What was learned, read from the folder where it was saved, with the tokenizer."""
        # As it was trained: bfloat16 would round updates of 2e-8 away.
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        return llm.to(self._device), self.load()[1]

    def load_model(self) -> tuple[PreTrainedModel, Any]:
        check_fitted(self._folder, self.name)
        return self.trained(self._folder)
