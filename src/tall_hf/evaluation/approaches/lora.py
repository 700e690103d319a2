"""LoRA: the language model learns the low-resource text by as many weights as a TALL trains, and continues it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from tall_hf.training.lora import lora_rank_for

from ..approach import Loader, TrainingText
from .causal_training import TuningRecipe, words_of
from .fine_tuned import FineTuned
from .language_model import encode_words


if TYPE_CHECKING:
    from peft import PeftModel

# Few weights, which start at zero, take larger steps.
LORA_RECIPE = TuningRecipe(learning_rates=(5e-5, 2e-4, 1e-3))


class LoRA(FineTuned):
    """Train LoRA on every linear layer of a causal language model, and ask it as `Direct` does.

    The embeddings of the tokens that the training text is made of are trained too: a language model that has hardly read
    the language's script has none worth keeping, and LoRA on linear layers alone could not write it.

    Args:
        load: gives the pretrained language model with its head, and its tokenizer; see `model_loader`.
        parameters: about how many to train, such as those that a TALL trains. The embeddings of the most frequent tokens
            get half of them at most, and what is left decides the rank.
        name: in the table.
        recipe: what to try and how long to train; `LORA_RECIPE` when not given.
        num_beams: as for `Direct`.
    """

    def __init__(
        self,
        load: Loader,
        parameters: int,
        name: str = "lora",
        recipe: TuningRecipe | None = None,
        num_beams: int | None = None,
    ):
        super().__init__(load, name, recipe or LORA_RECIPE, num_beams)
        self.parameters = parameters

        self._tokens: list[int] = []

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "parameters": self.parameters, "embeddings": "tokens of the training text"}

    def fit(self, training: TrainingText | None, folder: Path) -> dict[str, Any]:
        train, _ = words_of(training, self.name)
        self._tokens = frequent_tokens(self.load()[1], train)
        return super().fit(training, folder)

    def trainable(self, llm: PreTrainedModel) -> nn.Module:
        embeddings, head = llm.get_input_embeddings(), llm.get_output_embeddings()
        # Where they are tied peft ties what is learned as well.
        layers = [embeddings] if head is None or head.weight is embeddings.weight else [embeddings, head]
        tokens = self._tokens[: self.parameters // 2 // (embeddings.weight.shape[1] * len(layers))]
        names = {layer: name for name, layer in llm.named_modules() if any(layer is one for one in layers)}
        rank = lora_rank_for(llm, self.parameters - len(tokens) * embeddings.weight.shape[1] * len(layers))
        import peft  # the extra `train`, without which there is no rank

        config = peft.LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules="all-linear",
            trainable_token_indices={names[layer]: tokens for layer in layers} if tokens else None,
            task_type="CAUSAL_LM",
        )
        model = without_base_name(peft.get_peft_model(llm, config))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # whatever dtype `load` gives
        return model

    def trained(self, folder: Path) -> tuple[PreTrainedModel, Any]:
        import peft

        llm, tokenizer = self.load()
        # bfloat16 would round away what was learned in float32.
        return peft.PeftModel.from_pretrained(llm.float(), folder).merge_and_unload(), tokenizer


def frequent_tokens(tokenizer, train: Dataset) -> list[int]:
    """The ids that sentences of `text` and `word` are made of, the most frequent first, and the end of text."""
    counts = Counter()
    for start in range(0, len(train), 1000):
        rows = train[start : start + 1000]
        for ids in encode_words(tokenizer, rows["text"], rows["word"])[1]:
            counts.update(ids)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*end, *sorted(counts.keys() - set(end), key=lambda token: (-counts[token], token))]


def without_base_name(model: "PeftModel") -> "PeftModel":
    """The same model, which does not look on the Hub for the model below when it is saved."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = None
    return model
