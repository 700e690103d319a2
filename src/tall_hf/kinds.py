"""The kinds of model in this package, and what light checkpoints, saving and publishing need to know of each."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import cached_file

from tall_hf.components import ROLES, SWITCHES, compose, has_llm_layers
from tall_hf.files import read_json
from tall_hf.hub_token import check_token
from tall_hf.layer_fusion import LAYER_FUSION_ROLES, LAYER_FUSION_SWITCHES, compose_layer_fusion
from tall_hf.modeling.configuration_layer_fusion import LayerFusionConfig
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor
from tall_hf.modeling.processing_tall import TALLProcessor


@dataclass(frozen=True)
class ModelKind:
    """One of the package's models.

    Attributes:
        name: what messages call it.
        config_class, model_class, processor_class: its classes.
        roles: its parts, as `config.components` calls them; their configurations are `config.{role}_config`.
        switches: the fields of its configuration that are a user's choice.
        composing_options: what composing needs beside parts and switches, from a configuration and a processor.
        compose: makes model and processor of parts, given by role.
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    processor_class: type[ProcessorMixin]
    roles: tuple[str, ...]
    switches: tuple[str, ...]
    composing_options: Callable[[PreTrainedConfig, ProcessorMixin], dict]
    compose: Callable[..., tuple[PreTrainedModel, ProcessorMixin]]

    @property
    def tokenizer_folders(self) -> tuple[str, ...]:
        """Where a saved model keeps its tokenizers, but for the one at the root."""
        return tuple(name for name in self.processor_class.get_attributes() if name != "tokenizer")

    @property
    def module_names(self) -> tuple[str, ...]:
        """Those of the remote code that a configuration points to; what they import travels with them."""
        classes = (self.config_class, self.model_class, self.processor_class)
        return tuple(one.__module__.split(".")[-1] for one in classes)

    def chosen(self, config: PreTrainedConfig) -> dict:
        """The switches of a configuration."""
        return {name: getattr(config, name) for name in self.switches}

    def load(self, folder: str | os.PathLike, **options) -> tuple[PreTrainedModel, ProcessorMixin]:
        """A whole model and its processor; `options` are for the model's `from_pretrained`.

        Raises:
            OSError: a file is missing or broken.
            ValueError: the configuration is wrong, or the weights are not of the sizes that it names.
        """
        where = {name: options[name] for name in ("revision", "token") if name in options}
        if not Path(folder).is_dir():
            check_token(where.get("token"))
        try:
            model = self.model_class.from_pretrained(folder, use_safetensors=True, **options)
        except RuntimeError as error:
            raise ValueError(f"The weights of {folder} do not fit its configuration: {error}") from error
        return model, self.processor_class.from_pretrained(folder, **where)


TALL = ModelKind(
    name="TALL",
    config_class=TALLConfig,
    model_class=TALLForCausalLM,
    processor_class=TALLProcessor,
    roles=ROLES,
    switches=SWITCHES,
    composing_options=lambda config, processor: {
        # A TALL may be older than the rule that its translator must be told which language it reads: it reads its tokenizer's.
        "source_lang": processor.source_lang or getattr(processor.source_tokenizer, "src_lang", None),
        "pivot_lang": processor.pivot_lang,
        "leave_out_llm": not has_llm_layers(config),
    },
    compose=compose,
)
LAYER_FUSION = ModelKind(
    name="LayerFusionForCausalLM",
    config_class=LayerFusionConfig,
    model_class=LayerFusionForCausalLM,
    processor_class=LayerFusionProcessor,
    roles=LAYER_FUSION_ROLES,
    switches=LAYER_FUSION_SWITCHES,
    composing_options=lambda config, processor: {
        "source_lang": processor.source_lang,
        "max_source_length": processor.max_source_length,
        "repeat_source": processor.repeat_source,
    },
    compose=compose_layer_fusion,
)
KINDS = (TALL, LAYER_FUSION)


def kind_of(config: PreTrainedConfig | dict) -> ModelKind | None:
    """The kind of a model's configuration, or of its `config.json`; None for another package's."""
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    return next((kind for kind in KINDS if kind.config_class.model_type == model_type), None)


def check_kind(model: str | os.PathLike, *allowed: ModelKind, token: str | bool | None = None) -> ModelKind:
    """The kind of the model in a folder or Hub id; `from_pretrained` would read a checkpoint of another kind as its own.

    Args:
        model: folder or Hub id.
        allowed: the kinds that will do; all of them when none is given.
        token: for private repositories.

    Raises:
        ValueError: it is a checkpoint of another kind, or its configuration is damaged.
        OSError: it is not there.
    """
    allowed = allowed or KINDS
    if Path(model).is_dir() and not Path(model, "config.json").is_file():
        raise FileNotFoundError(f"{model} has no config.json, so no model was saved there.")
    if not Path(model).is_dir():
        check_token(token)
    try:
        config_file = cached_file(str(model), "config.json", token=token)
    except OSError as error:
        raise OSError(f"There is no folder {model}, and as a Hub id it cannot be read: {error}") from error
    config = read_json(Path(config_file))
    kind = kind_of(config)
    if kind not in allowed:
        names = " or ".join(f"a {one.name}" for one in allowed)
        raise ValueError(
            f"{model} is of type {config.get('model_type')!r}, not {names}; name what composing it or a training of it wrote."
        )
    return kind
