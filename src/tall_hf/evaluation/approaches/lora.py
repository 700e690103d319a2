"""LoRA: the language model learns the low-resource text by as many weights as a TALL trains, and continues it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from tall_hf.training.lora import lora_rank_for

from ..approach import Loader
from .causal_training import Recipe
from .fine_tuned import FineTuned


if TYPE_CHECKING:
    from peft import PeftModel

# Few weights, which start at zero, take larger steps.
LORA_RECIPE = Recipe(learning_rates=(5e-5, 2e-4, 1e-3))


class LoRA(FineTuned):
    """Train LoRA on every linear layer of a causal language model, and ask it as `Direct` does.

    Args:
        load: gives the pretrained language model with its head, and its tokenizer; see `model_loader`.
        parameters: about how many to train, such as those that a TALL trains; decides the rank.
        name: in the table.
        recipe: what to try and how long to train; `LORA_RECIPE` when not given.
        num_beams: as for `Direct`.
    """

    def __init__(
        self,
        load: Loader,
        parameters: int,
        name: str = "lora",
        recipe: Recipe | None = None,
        num_beams: int | None = None,
    ):
        super().__init__(load, name, recipe or LORA_RECIPE, num_beams)
        self.parameters = parameters

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "parameters": self.parameters}

    def trainable(self, llm: PreTrainedModel) -> nn.Module:
        rank = lora_rank_for(llm, self.parameters)
        import peft  # the extra `train`, without which there is no rank

        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        return without_base_name(peft.get_peft_model(llm, config))

    def trained(self, folder: Path) -> tuple[PreTrainedModel, Any]:
        import peft

        llm, tokenizer = self.load()
        return peft.PeftModel.from_pretrained(llm, folder).merge_and_unload(), tokenizer


def without_base_name(model: "PeftModel") -> "PeftModel":
    """The same model, which does not look on the Hub for the model below when it is saved."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = None
    return model
