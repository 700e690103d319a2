"""Light checkpoints: the adapters alone, pinned to the exact frozen parts they were trained between."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedConfig, ProcessorMixin

from tall_hf.files import staged_folder
from tall_hf.fingerprints import hash_tensors
from tall_hf.hub_token import check_token
from tall_hf.kinds import ModelKind, check_kind
from tall_hf.loading import Component
from tall_hf.modeling.frozen_parts_tall import FrozenPartsModel
from tall_hf.modeling.saved_weights_tall import WEIGHTS_NAME, check_weights
from tall_hf.saving import check_output

from .lora import add_lora


PINS_NAME = "frozen_parts.json"


def trainable_names(model: FrozenPartsModel) -> set[str]:
    """Names of the parameters that training changes."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def light_names(model: FrozenPartsModel) -> set[str]:
    """Names of what a light checkpoint holds: the adapters, and what is trained inside the frozen parts, as LoRA is."""
    frozen = model.frozen_prefixes
    return {name for name in model.state_dict() if not name.startswith(frozen)} | trainable_names(model)


def cast_adapters(model: FrozenPartsModel, dtype: torch.dtype) -> None:
    """Put the adapters into a dtype of their own; the frozen parts keep theirs."""
    frozen = model.frozen_prefixes
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not name.startswith(frozen):
            tensor.data = tensor.data.to(dtype)


def cast_frozen(model: FrozenPartsModel, dtype: torch.dtype) -> None:
    """Put the frozen parts into a dtype of their own; the adapters keep theirs."""
    frozen = model.frozen_prefixes
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.requires_grad and name.startswith(frozen):
            weight.data = weight.data.to(dtype)
    for name, buffer in model.named_buffers():
        # Tables of positions follow; rotary frequencies, which are vectors, lose their meaning in 16 bits.
        if buffer.is_floating_point() and buffer.dim() > 1 and name.startswith(frozen):
            buffer.data = buffer.data.to(dtype)


def frozen_fingerprint(model: FrozenPartsModel) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of every weight of the frozen parts."""
    skipped = light_names(model) | set(model.all_tied_weights_keys)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in skipped}
    # LoRA keeps the frozen weight of a layer under a name of its own.
    weights = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items()}
    digest = hashlib.sha256()
    hash_tensors(digest, weights)
    return f"sha256:{digest.hexdigest()}"


def frozen_pins(model: FrozenPartsModel) -> dict:
    """What a light checkpoint must be loaded onto: names, revisions, dtypes and the fingerprint of the frozen parts."""
    frozen = model.frozen_prefixes
    return {
        "components": model.config.components,
        "dtype": _dtype_name(model.dtype),
        "frozen_dtype": _dtype_name(_frozen_dtype(model)),
        "fingerprint": frozen_fingerprint(model),
        "unfrozen": sorted(
            name for name in trainable_names(model) if name.startswith(frozen) and ".lora_" not in name
        ),
    }


def _frozen_dtype(model: FrozenPartsModel) -> torch.dtype:
    """That of what stays frozen: weights inside the frozen parts that are trained are kept in the adapters' dtype."""
    frozen = (w for part in reversed(model.frozen_parts) for w in part.parameters() if not w.requires_grad)
    return next((weight.dtype for weight in frozen if weight.is_floating_point()), model.dtype)


@contextlib.contextmanager
def marked_as_light(model: FrozenPartsModel):
    """Within, `save_pretrained` writes a configuration that makes every loading but `load_light` refuse."""
    model.config.trainable_only = True
    try:
        yield
    finally:
        model.config.trainable_only = False


def save_light(
    model: FrozenPartsModel,
    processor: ProcessorMixin,
    folder: str | os.PathLike,
    state_dict: dict[str, torch.Tensor] | None = None,
    pins: dict | None = None,
) -> Path:
    """Save the adapters only, with the pins of the frozen parts and the processor, aside; then put the folder in its place.

    Args:
        model: the model; on a sharded one give `state_dict` and `pins`.
        processor: its processor.
        folder: where to write; a model that was saved there is replaced.
        state_dict: the whole model's gathered weights.
        pins: `frozen_pins(model)`, taken before the model was sharded.

    Raises:
        BlockingIOError: another process is saving a model there.
        FileExistsError: `folder` holds something that is not a saved model of this package.
    """
    folder = check_output(folder, PINS_NAME)
    names = light_names(model)
    weights = model.state_dict() if state_dict is None else state_dict
    with staged_folder(folder) as aside:
        with marked_as_light(model):
            model.save_pretrained(aside, state_dict={name: weights[name] for name in weights if name in names})
        processor.save_pretrained(aside)
        write_pins(pins or frozen_pins(model), aside)
    return folder


def write_pins(pins: dict, folder: str | os.PathLike) -> None:
    """Write `frozen_pins` into a checkpoint."""
    Path(folder, PINS_NAME).write_text(json.dumps(pins, indent=2) + "\n", encoding="utf-8")


def load_light(
    folder: str | os.PathLike,
    *,
    base: str | os.PathLike | None = None,
    attn_implementation: str | dict | None = None,
    device_map: str | dict | None = None,
    token: str | bool | None = None,
    allow_pickle: bool = False,
) -> tuple[FrozenPartsModel, ProcessorMixin]:
    """Load a light checkpoint, the adapters alone, onto the exact frozen parts it was trained between.

    Args:
        folder: the light checkpoint: a folder, such as a Trainer's `checkpoint-500`, or a Hub id with an optional
            `@revision`, as `tall publish --trainable-only` made it.
        base: a saved whole model to take the frozen parts from; when not given they are composed again from their pinned names
            and revisions.
        attn_implementation: as for `compose`.
        device_map: as for `compose`.
        token: for private repositories.
        allow_pickle: accept parts that only have pickled weights.

    Returns:
        The whole model, in evaluation mode, and its processor; `model.save_pretrained` saves it whole.

    Raises:
        FileNotFoundError: `folder` is no light checkpoint, or a part is no longer where it was.
        OSError: a file of the checkpoint or of a part cannot be fetched.
        ValueError: the frozen parts are not the pinned ones, or weights are missing, left over, or of another shape.
    """
    folder = _fetched(folder, token)
    for name in (PINS_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}, so it is not a light checkpoint. A whole model loads with `from_pretrained`."
            )
    pins = _read_pins(folder)
    kind = check_kind(folder)
    config = kind.config_class.from_pretrained(folder)
    processor = kind.processor_class.from_pretrained(folder)
    options = {"device_map": device_map, "attn_implementation": attn_implementation}
    if base is not None:
        if not Path(base).is_dir():
            check_token(token)
        options = {name: value for name, value in options.items() if value is not None}
        model = kind.model_class.from_pretrained(
            base, dtype=getattr(torch, pins["dtype"]), token=token, use_safetensors=True, **options
        )
        _check_switches(kind, model.config, config, base)
    else:
        specs = {role: _pinned_spec(role, pins) for role in kind.roles}
        _check_still_there(specs, folder, token)
        model, _ = kind.compose(
            **specs,
            dtype=pins["dtype"],
            token=token,
            allow_pickle=allow_pickle,
            **options,
            **kind.composing_options(config, processor),
            **kind.chosen(config),
        )
    for name in pins.get("unfrozen", ()):
        model.get_parameter(name).requires_grad_(True)
    if pins.get("unfrozen"):
        model.config.components = pins["components"]  # they tell which parts were changed
    cast_frozen(model, getattr(torch, pins["frozen_dtype"]))
    check_pins(pins, frozen_fingerprint(model), folder)
    if pins.get("unfrozen"):
        # Layers of two dtypes inside one part compute under autocast alone, which only a training brings.
        cast_frozen(model, getattr(torch, pins["dtype"]))
    if getattr(config, "lora", None):
        add_lora(model, **config.lora)
    try:
        weights = load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise OSError(
            f"The safetensors weights of {folder} are corrupted or incomplete ({error}). Download or save them again."
        ) from error
    check_weights(model, weights, f"of {folder}")
    try:
        result = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(f"The weights in {folder} do not fit this model: {error}") from error
    check_loaded(result, model, folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
        model.check_generation_config()
    return model.eval(), processor


def check_pins(pins: dict, found: str, folder: str | os.PathLike) -> None:
    """Refuse frozen weights, known by their fingerprint, that are not those that `folder` was trained between.

    Raises:
        ValueError: they are others; the error names the parts that are pinned.
    """
    if found != pins["fingerprint"]:
        parts = ", ".join(
            f"{role} from {part['name_or_path']}" + (f"@{part['revision']}" if part.get("revision") else "")
            for role, part in (pins["components"] or {}).items()
            if part.get("name_or_path") is not None
        )
        raise ValueError(
            f"The frozen weights are not those that {folder} was trained between: their fingerprint is {found}, and "
            f"{pins['fingerprint']} is pinned ({parts or 'origin unknown'}; dtype {pins['frozen_dtype']}). A part was "
            "changed or replaced: put the original back, or give a whole model that still has it as `base`."
        )


def check_loaded(result, model: FrozenPartsModel, folder: str | os.PathLike) -> None:
    """Refuse what `load_state_dict` reports unless nothing but frozen weights was missing.

    Raises:
        ValueError: a weight of the adapters is missing, or one is left over.
    """
    missing = sorted(set(result.missing_keys) & light_names(model))
    if missing or result.unexpected_keys:
        problem = f"misses {missing[0]}" if missing else f"has {result.unexpected_keys[0]}, which the model has not"
        raise ValueError(
            f"The weights in {folder} do not fit this model: it {problem} (in all {len(missing)} missing, "
            f"{len(result.unexpected_keys)} left over). Load it with the switches it was trained with."
        )


def _read_pins(folder: Path) -> dict:
    """What `write_pins` wrote; ValueError if it is damaged."""
    try:
        pins = json.loads((folder / PINS_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{PINS_NAME} of {folder} is damaged ({error}). Save or download it again.") from error
    is_whole = isinstance(pins, dict) and isinstance(pins.get("fingerprint"), str)
    components = (pins["components"] if is_whole and "components" in pins else None) or {}
    is_whole = is_whole and isinstance(components, dict)
    is_whole = is_whole and all(
        isinstance(part, dict)
        and isinstance(part.get("name_or_path"), str | None)
        and isinstance(part.get("revision"), str | None)
        for part in components.values()
    )
    is_whole = is_whole and all(
        isinstance(name, str) and isinstance(getattr(torch, name, None), torch.dtype)
        for name in (pins.get("dtype"), pins.get("frozen_dtype"))
    )
    unfrozen = pins.get("unfrozen", []) if is_whole else None
    if not isinstance(unfrozen, list) or not all(isinstance(name, str) for name in unfrozen):
        raise ValueError(
            f"{PINS_NAME} of {folder} is damaged: it needs `fingerprint`, `dtype`, `frozen_dtype` and `components`, each with "
            "a `name_or_path`. Save or download it again."
        )
    return pins


def _pinned_spec(role: str, pins: dict) -> str:
    part = (pins["components"] or {}).get(role)
    if part is None or part.get("name_or_path") is None:
        raise ValueError(
            f"The checkpoint does not say where its part {role!r} came from; give the model it was trained from as `base`."
        )
    return part["name_or_path"] + (f"@{part['revision']}" if part.get("revision") else "")


def _fetched(folder: str | os.PathLike, token: str | bool | None) -> Path:
    """The folder of a light checkpoint, which is downloaded if a Hub id is given."""
    if os.path.isabs(folder) or Path(folder).is_dir():
        return Path(folder)
    origin = Component.resolve(folder, token)
    try:
        # Before gigabytes of a whole model are fetched.
        hf_hub_download(origin.name_or_path, PINS_NAME, revision=origin.revision, token=token)
    except RemoteEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} has no {PINS_NAME}, so it is not a light checkpoint. A whole model loads with "
            "`from_pretrained`."
        ) from error
    return Path(snapshot_download(origin.name_or_path, revision=origin.revision, token=token))


def _check_still_there(specs: dict[str, str], folder: Path, token: str | bool | None) -> None:
    for role, spec in specs.items():
        try:
            Component.resolve(spec, token)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise FileNotFoundError(
                f"The part {role!r} that {folder} was trained between, {spec}, is no longer on the Hub, or this token may "
                "not see it. Give a whole model that has it as `base`."
            ) from error


def _check_switches(kind: ModelKind, config: PreTrainedConfig, wanted: PreTrainedConfig, base) -> None:
    have, want = kind.chosen(config), kind.chosen(wanted)
    differing = [f"{name} {have[name]!r} instead of {want[name]!r}" for name in want if have[name] != want[name]]
    if differing:
        raise ValueError(f"{base} cannot be the base of this checkpoint: it has {', '.join(differing)}.")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
