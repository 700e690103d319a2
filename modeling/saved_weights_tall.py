"""What saved weights are held to before any is read: the index of several files, and the headers beside the model's own sizes."""

from pathlib import Path

from transformers import PreTrainedConfig
from transformers.modeling_utils import load_state_dict


# Arguments of `from_pretrained` that say where a checkpoint is.
WHERE = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
# Weights that a model may have beside so many times those of its files: tied ones count again, and adapters may be new.
_MORE_THAN_SAVED, _NEW_WEIGHTS = 4, 100_000_000
_MOST_IN_A_NUMBER = 16  # of 2 bits in one of 32


class BrokenWeightsError(OSError):
    """Saved weights, or an index of them, that are not what a model of this kind has saved."""


def check_saved_index(checkpoint, options):
    """Refuse the malformed index of a checkpoint's weights, if it has one, by the file's name."""
    where = {name: options[name] for name in WHERE if name in options}
    try:
        # What reads a configuration reads any JSON of a folder or a repository.
        index, _ = PreTrainedConfig.get_config_dict(checkpoint, _configuration_file=INDEX_NAME, **where)
    except Exception as error:
        if isinstance(error, OSError) and "JSON" not in str(error):
            return  # there is none
        raise BrokenWeightsError(
            f"{INDEX_NAME} of {checkpoint} is damaged ({error}). Save the model again."
        ) from error
    check_index(index, f"{INDEX_NAME} of {checkpoint}")


def check_index(index, name):
    """Refuse the index of weights in several files if it is malformed, or leads to anything but weights beside it.

    Raises:
        BrokenWeightsError: it is malformed.
        ValueError: it names another file.
    """
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(index.get("metadata"), dict):
        raise BrokenWeightsError(
            f"{name} is damaged: it needs `metadata` and a `weight_map` that names the file of each weight. Save the model again."
        )
    for file in weight_map.values():
        if not isinstance(file, str):
            raise BrokenWeightsError(f"{name} is damaged: {file!r} stands for a file's name. Save the model again.")
        if not file.endswith(".safetensors") or Path(file).name != file or "\\" in file:
            raise ValueError(f"{name} names {file!r}, which is no file of weights beside it. Save the model again.")


def check_files(model, files, may_differ=False, is_quantized=False):
    """Compare the headers of safetensors files with a model that was made without memory.

    Args:
        model: of the configuration, made without memory.
        files: of its weights.
        may_differ: weights of other sizes are asked for.
        is_quantized: numbers are of other types and sizes, which the quantizer checks; several weights may be in one number.

    Raises:
        BrokenWeightsError, RuntimeError: as `check_weights`; the model has far more weights than the files.
    """
    found = {}
    for file in files:
        found |= load_state_dict(file, map_location="meta")
    if not is_quantized:
        check_weights(model, found, ", ".join(map(str, files)), may_differ)
    # Positions that are not saved, but computed, take memory too.
    described = sum(one.numel() for one in (*model.parameters(), *model.buffers()) if one.is_meta)
    held = sum(weight.numel() for weight in found.values())
    if described > _MORE_THAN_SAVED * held * (_MOST_IN_A_NUMBER if is_quantized else 1) + _NEW_WEIGHTS:
        raise RuntimeError(
            f"The configuration describes a model of {described:,} weights, but the files hold {held:,}: they do not belong "
            "together. Download or save the model again."
        )


def check_weights(model, found, name, may_differ=False):
    """Refuse saved weights, or their like without memory, that are no floating-point numbers or of another size.

    Raises:
        BrokenWeightsError: a weight is not of a floating-point type; read as one it would be another number.
        RuntimeError: a weight is of another size than the model's, unless `may_differ`.
    """
    expected = model.state_dict()
    for key, weight in found.items():
        ours = expected.get(key)
        if not weight.is_floating_point() and (ours is None or ours.is_floating_point()):
            raise BrokenWeightsError(
                f"The safetensors weights {name} are corrupted: {key} is of type {weight.dtype}, and weights are "
                "floating-point numbers. Download or save them again."
            )
        # Where the count alone agrees, transformers looks at the shape.
        if ours is not None and ours.is_meta and ours.numel() != weight.numel() and not may_differ:
            raise RuntimeError(
                f"{key} has the shape {tuple(weight.shape)} in {name}, but {tuple(ours.shape)} by the configuration: "
                "they do not belong together. Download or save the model again."
            )
