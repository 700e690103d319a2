"""Partial unfreezing: chosen layers of the frozen parts train beside the adapters."""

import copy
from collections.abc import Iterable

from torch import nn

from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM


def unfreeze(model: TALLForCausalLM, names: Iterable[str]) -> TALLForCausalLM:
    """Let modules of the frozen parts train, in place; they stay without dropout, and fixed position tables stay fixed.

    `model.config.components` then says of each part, under "unfrozen", that it is no longer what its name stands for.

    Args:
        model: a TALL.
        names: paths that begin with `llm`, `decoder` (of the HR→LR translator) or `lm_head` and go on with the names of their
            own modules, layers also counted from the end: `decoder.layers.-1`, `llm.layers.-1.mlp`. The LR→HR translator
            stays frozen: it has translated the training rows, and would translate otherwise afterwards.

    Returns:
        The same model.

    Raises:
        ValueError: there is no such module, it has nothing to train, or the model has LoRA or is no TALL.
    """
    if model.config.model_type != TALLConfig.model_type:
        raise ValueError(
            f"Layers of a TALL are unfrozen, got a {type(model).__name__}; what that one is made of stays frozen."
        )
    if model.config.lora:
        raise ValueError("The model has LoRA; layers are unfrozen or have LoRA, not both.")
    roots = {
        "llm": ("llm", model.encoder.llm),
        "decoder": ("hr_lr", model.decoder),
        "lm_head": ("hr_lr", model.lm_head),
    }
    found = [(name, *_find(roots, name)) for name in names]
    components = copy.deepcopy(model.config.components or {})
    for name, role, module in found:
        for part in module.modules():
            if "Sinusoidal" not in type(part).__name__:
                for weight in part.parameters(recurse=False):
                    if weight.is_floating_point():
                        weight.requires_grad_(True)
                        weight.data = weight.data.to(model.dtype)  # small steps are lost in 16 bits
        if role in components:
            components[role]["unfrozen"] = sorted({*components[role].get("unfrozen", ()), name})
    model.config.components = components or None
    return model


def _find(roots: dict[str, tuple[str, nn.Module]], name: str) -> tuple[str, nn.Module]:
    """The part and the module of a name."""
    root, *path = name.split(".")
    if root == "source_encoder":
        raise ValueError(
            f"`unfreeze` names {name!r}, a part of the translator that has translated the rows to train on: it would translate "
            "otherwise afterwards. Leave it frozen."
        )
    if root not in roots:
        raise ValueError(f"`unfreeze` names begin with {', '.join(roots)}, got {name!r}.")
    role, module = roots[root]
    for step, key in enumerate(path):
        children = dict(module.named_children())
        if (
            isinstance(module, nn.ModuleList)
            and key.removeprefix("-").isdecimal()
            and -len(module) <= int(key) < len(module)
        ):
            key = str(int(key) % len(module))
        if key not in children:
            here = ".".join([root, *path[:step]])
            raise ValueError(
                f"`unfreeze` names {name!r}, but {here} has no {key!r}; it has {', '.join(children) or 'no modules'}."
            )
        module = children[key]
    if not any(weight.is_floating_point() for weight in module.parameters()):
        raise ValueError(f"`unfreeze` names {name!r}, which has no weights to train.")
    return role, module
