"""LoRA on the frozen LLM of a TALL, and if asked on its HR→LR decoder, beside the adapters that train anyway.

peft injects its layers into the sub-modules, in place. So the model keeps its class, `save_pretrained`, the Trainer and its
checkpoints see the adapters and LoRA as weights like others, and nothing has to be switched back on; transformers'
`add_adapter` on the whole model would freeze the adapters and leave them out of what is saved. What is published is
merged: it needs neither peft nor this package.
"""

import copy
import os
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import dropout as apply_dropout
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tall_hf.loading import quiet_transformers
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM


def add_lora(
    model: TALLForCausalLM,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    target_modules: str | list[str] | None = None,
    decoder: bool = False,
) -> TALLForCausalLM:
    """Add LoRA to the frozen LLM, in place; what trained before trains on, and the rest stays frozen.

    LoRA starts at zero, so the model predicts what it did. Its weights have the dtype of the adapters, and its dropout is
    on when the adapters train. The settings are kept in `model.config.lora`, for `load_lora`. In `parameter_table` the
    row "LLM body" (or "HR→LR decoder") then counts LoRA in its total and under `requires_grad`; the paper has none.

    Args:
        model: a TALL.
        r: rank.
        alpha: the update is scaled by alpha / r.
        dropout: probability, on what LoRA reads.
        target_modules: names of the LLM's linear layers, or a regular expression; every one of them when not given,
            which is the same rule for each LLM family.
        decoder: also on every linear layer of the HR→LR decoder.

    Returns:
        The same model.

    Raises:
        ImportError: peft is not installed.
        ValueError: a setting is out of range, a name fits no layer, the model has LoRA already, or is no TALL.
    """
    _import_peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.config.model_type != TALLConfig.model_type:
        raise ValueError(f"LoRA is for a TALL, got a {type(model).__name__}; what that one is made of stays frozen.")
    if model.config.lora:
        raise ValueError(
            f"The model has LoRA already ({model.config.lora}); merge it first, with `merge_lora(model)`."
        )
    check_lora(r, alpha, dropout)
    dtype = model.dtype
    parts = [(model.encoder.llm, target_modules)] + ([(model.decoder, None)] if decoder else [])
    for part, targets in parts:
        _inject(part, r, alpha, dropout, targets)
        for layer in part.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.lora_A.to(dtype)
                layer.lora_B.to(dtype)
                if dropout:
                    layer.lora_dropout["default"] = _LoraDropout(dropout, model.encoder.target_encoder)
    model.config.lora = {
        "r": r,
        "alpha": alpha,
        "dropout": dropout,
        "target_modules": target_modules,
        "decoder": decoder,
    }
    return model


def check_lora(r: int, alpha: float, dropout: float) -> None:
    """ValueError for settings of LoRA that are out of range."""
    if r < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ValueError(
            f"LoRA needs r of at least 1, alpha above 0 and dropout in [0, 1); got {r=}, {alpha=}, {dropout=}."
        )


def merge_lora(model: TALLForCausalLM) -> TALLForCausalLM:
    """Add LoRA's update to the weights it belongs to, in place, and take its layers out again.

    `model.config.components` then says of a changed part, under "merged_lora", that it is no longer what its name stands
    for.

    Returns:
        The same model, which saves and loads as one that never had LoRA.

    Raises:
        ImportError: peft is not installed.
        ValueError: there is no LoRA in the model, or a merged weight would not be finite.
    """
    _import_peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not model.config.lora:
        raise ValueError("The model has no LoRA to merge; `add_lora(model)` adds it.")
    components = copy.deepcopy(model.config.components or {})
    for role, part in (("llm", model.encoder.llm), ("hr_lr", model.decoder)):
        layers = {name: layer for name, layer in part.named_modules() if isinstance(layer, BaseTunerLayer)}
        for layer in layers.values():
            layer.merge(safe_merge=True)
        for name, layer in layers.items():
            part.set_submodule(name, layer.get_base_layer())
        if layers:
            del part.peft_config
        if layers and role in components:
            components[role]["merged_lora"] = {name: model.config.lora[name] for name in ("r", "alpha")}
    model.config.components = components or None
    model.config.lora = None
    return model


def load_lora(folder: str | os.PathLike, **kwargs) -> TALLForCausalLM:
    """Load a TALL that was saved whole with its LoRA not merged, to train on.

    Args:
        folder: what `save_pretrained` wrote, or the Trainer.
        kwargs: for `TALLForCausalLM.from_pretrained`.

    Raises:
        ImportError: peft is not installed.
        ValueError: the folder has no LoRA, or weights are missing.
    """
    _import_peft()
    config = TALLConfig.from_pretrained(folder)
    settings = config.lora
    if not settings:
        raise ValueError(f"{folder} has no LoRA that is not merged; load it with `TALLForCausalLM.from_pretrained`.")
    config.lora = None
    with quiet_transformers():  # LoRA's weights have no place yet; what must have one is checked here
        model, info = TALLForCausalLM.from_pretrained(
            folder, config=config, key_mapping={r"\.base_layer\.": "."}, output_loading_info=True, **kwargs
        )
    tensors = _lora_tensors(Path(folder))
    add_lora(model, **settings)
    missing = set(map(str, info["missing_keys"])) | {n for n, _ in model.named_parameters() if ".lora_" in n} - set(
        tensors
    )
    unknown = set(map(str, info["unexpected_keys"])) - set(tensors) | set(tensors) - set(model.state_dict())
    if missing or unknown:
        raise ValueError(
            f"{folder} does not hold a whole TALL with LoRA: {len(missing)} weights are missing and {len(unknown)} are not "
            f"known, such as {min(missing | unknown)}."
        )
    model.load_state_dict(tensors, strict=False)
    return model


def lora_rank_for(llm: PreTrainedModel, parameters: int, target_modules: str | list[str] | None = None) -> int:
    """The rank at which LoRA on `llm` has nearest to so many parameters, and at least 1.

    Args:
        llm: a language model by itself, with or without its head (which gets no LoRA); it is not changed.
        parameters: how many are wanted, such as those a TALL trains.
        target_modules: as for `add_lora`.
    """
    _import_peft()
    with torch.device("meta"):
        shape = type(llm)(llm.config)
    shape.requires_grad_(False)
    _inject(shape, 1, 1, 0.0, target_modules)
    return max(1, round(parameters / sum(p.numel() for p in shape.parameters() if p.requires_grad)))


class _LoraDropout(nn.Dropout):
    """Dropout that is on when an adapter trains: all of a frozen part stays in evaluation mode, LoRA's layers with it."""

    def __init__(self, p: float, adapter: nn.Module):
        super().__init__(p)
        self._adapter = (adapter,)  # not a child: in a tuple it is no part of this module's weights

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return apply_dropout(hidden_states, self.p, training=self._adapter[0].training)


def _inject(part: PreTrainedModel, r, alpha, dropout, target_modules):
    peft = _import_peft()
    settings = peft.LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in part.modules()),  # GPT-2 stores its weights so
    )
    peft.inject_adapter_in_model(settings, part)


def _lora_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys() if ".lora_" in name}  # noqa: SIM118
    return tensors


def _import_peft():
    """peft, which is not needed to import this package."""
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA needs peft, which is not installed: pip install 'tall-hf[train]'.") from error
    return peft
