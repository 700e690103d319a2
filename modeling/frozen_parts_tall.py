"""What models around frozen parts share: loading from safetensors alone, freezing, inference, dtypes, padding, and the loss."""

import functools
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .fusion_tall import SourceFusion
from .part_configs_tall import check_generation
from .saved_weights_tall import (
    INDEX_NAME,
    WEIGHTS_NAME,
    WHERE,
    BrokenWeightsError,
    check_files,
    check_index,
    check_saved_index,
)


class FrozenPartsModel(PreTrainedModel):
    """A model of pretrained parts that stay frozen and of adapters that are trained."""

    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """As in transformers, from safetensors only, and whole.

        Raises:
            ValueError: for `use_safetensors=False`, or a checkpoint that only tall-hf can load, before its weights are fetched.
            OSError: for a checkpoint without safetensors weights, or with corrupted ones, whole numbers among them.
            RuntimeError: for weights of other sizes than the configuration's, before memory is taken for them.
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(
                f"{cls.__name__} is read from safetensors only: leave out `use_safetensors={kwargs['use_safetensors']}`."
            )
        if isinstance(config, cls.config_class):  # as the Auto classes hand it over
            cls.check_whole(config)
        elif config is None:
            _check_type(pretrained_model_name_or_path, cls, kwargs)
        folder = Path(pretrained_model_name_or_path or "", kwargs.get("subfolder") or "")
        is_folder = pretrained_model_name_or_path is not None and folder.is_dir()
        if is_folder and (folder / INDEX_NAME).is_file() and not (folder / WEIGHTS_NAME).is_file():
            check_saved_index(pretrained_model_name_or_path, kwargs)
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        except BrokenWeightsError:
            raise
        except OSError as error:
            if "model.safetensors" not in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} has no safetensors weights, and {cls.__name__} reads no others: pickled "
                f"ones are refused. Save the model again with `save_pretrained`. ({error})"
            ) from error
        except Exception as error:
            # The package of that error is not imported here: see the first lines of modeling_tall.py.
            if type(error).__name__ != "SafetensorError" and "safetensors of unknown dtype" not in str(error):
                if isinstance(error, AttributeError | LookupError | TypeError | ValueError) and not is_folder:
                    check_saved_index(pretrained_model_name_or_path, kwargs)
                raise
            raise OSError(
                f"The safetensors weights of {pretrained_model_name_or_path} are corrupted or incomplete ({error}). "
                "Download or save them again."
            ) from error
        (loaded[0] if isinstance(loaded, tuple) else loaded).check_generation_config()  # a report may come with it
        return loaded

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        # Here transformers knows the files, has made the model without memory, and has read no weight yet. A quantized
        # checkpoint has numbers of other types and sizes, which its quantizer checks.
        if state_dict is None:
            is_quantized = load_config.hf_quantizer is not None
            if load_config.sharded_metadata is not None and not is_quantized:
                check_index({**load_config.sharded_metadata, "metadata": {}}, INDEX_NAME)
            check_files(model, checkpoint_files, load_config.ignore_mismatched_sizes, is_quantized)
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SourceFusion):
            module.reset_parameters()

    @staticmethod
    def check_whole(config):
        """ValueError for the configuration of a checkpoint without the weights of the frozen parts."""
        if config.trainable_only:
            raise ValueError(
                "This checkpoint holds the trained adapters only, without the frozen parts they belong to. Load it with "
                "`tall_hf.load_light(folder)` from the tall-hf package, then save it whole with `save_pretrained`."
            )

    def check_generation_config(self):
        """ValueError for settings of `generate` that would take all memory, or name a token that there is not."""
        if self.generation_config is not None:
            vocab_size = self.config.get_text_config(decoder=True).vocab_size
            check_generation("generation_config", self.generation_config.to_dict(), vocab_size)

    @property
    def frozen_parts(self) -> tuple[nn.Module, ...]:
        """The pretrained modules, which stay out of training; a model names its own."""
        return ()

    @property
    def frozen_prefixes(self) -> tuple[str, ...]:
        """How the names of the pretrained modules' weights begin in this model; all others are of the adapters."""
        return tuple(
            f"{name}." for name, module in self.named_modules() if any(module is p for p in self.frozen_parts)
        )

    def freeze_parts(self):
        """Take every pretrained part out of training; the adapters keep their `requires_grad`."""
        for part in self.frozen_parts:
            freeze(part)

    def tie_weights(self, missing_keys=None, recompute_mapping=True):
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)
        if missing_keys is not None:
            # `from_pretrained` makes every parameter anew, trainable, and ends here.
            self.freeze_parts()

    def train(self, mode: bool = True):
        """Switch the trainable modules only: the frozen parts stay in evaluation mode, without dropout."""
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
            if mode:
                # Gradient checkpointing looks at the layer's own flag; what is inside the layer stays in eval mode.
                for layer in part.modules():
                    if isinstance(layer, GradientCheckpointingLayer):
                        layer.training = True
        return self


def build_part_model(name, auto_class, config):
    """A part with random weights, made of its configuration.

    Raises:
        ValueError: no model can be made of it, such as with an activation or rotary positions of an unknown kind.
    """
    try:
        return auto_class.from_config(config)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        # Each type has its own way to fail on a value it did not expect.
        raise ValueError(
            f"`{name}` is of type {config.model_type!r}, but no such model can be built of it ({type(error).__name__}: {error})."
        ) from error


def inference(method):
    """Run a method without gradients and in evaluation mode, whatever mode a training has left the model in."""

    @functools.wraps(method)
    @torch.no_grad()
    def inference(self, *args, **kwargs):
        was_training = self.training
        self.eval()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.train(was_training)

    return inference


def _check_type(checkpoint, model_class, options):
    """ValueError for a checkpoint of another type, of which nearly every weight would be made anew."""
    where = {name: options[name] for name in WHERE if name in options}
    found = PreTrainedConfig.get_config_dict(checkpoint, **where)[0].get("model_type")
    if found != model_class.config_class.model_type:
        raise ValueError(f"{checkpoint} is of type {found!r}, not a {model_class.__name__}.")


def squeeze_padding(attention_mask: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move the padding of each row behind its tokens, keeping their order.

    Args:
        attention_mask: (batch, length), non-zero for tokens; all ones when None (then a tensor must be given).
        tensors: (batch, length) or (batch, length, width), moved alike.

    Returns:
        The moved mask, of ones and zeros, then the moved tensors.

    Raises:
        ValueError: mask and tensors differ in batch or length.
    """
    if attention_mask is None:
        attention_mask = torch.ones(tensors[0].shape[:2], dtype=torch.long, device=tensors[0].device)
        return attention_mask, *tensors
    for tensor in tensors:
        if attention_mask.shape != tensor.shape[:2]:
            raise ValueError(
                f"An attention mask of shape {tuple(attention_mask.shape)} does not fit inputs of shape "
                f"{tuple(tensor.shape[:2])}; it needs one number for each token."
            )
    attention_mask = (attention_mask != 0).to(attention_mask.dtype)
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    moved = [attention_mask.gather(1, order)]
    for tensor in tensors:
        index = order if tensor.dim() == 2 else order.unsqueeze(-1).expand_as(tensor)
        moved.append(tensor.gather(1, index))
    return tuple(moved)


def freeze(part: nn.Module):
    """Take a pretrained part out of training, and dropout out of it."""
    part.requires_grad_(False)
    for layer in part.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            # These layers keep their training flag (see `TALLForCausalLM.train`), and some apply dropout by it.
            for name in [
                name for name, value in vars(layer).items() if "dropout" in name and isinstance(value, float)
            ]:
                setattr(layer, name, 0.0)


def in_dtype_of(part: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """States as `part` computes: the frozen parts may be kept in a dtype of their own."""
    # A replica of nn.DataParallel has no parameters; it computes as it is fed.
    return states.to(next((weight.dtype for weight in part.parameters() if weight.is_floating_point()), states.dtype))


def last_positions(logits_to_keep: int | torch.Tensor, length: int, device: torch.device) -> int | torch.Tensor:
    """What `logits_to_keep` names of `length` positions, as an index that makes rows of their own where it is not all of them.

    A slice of a batch is no block of memory, and a linear layer without bias multiplies it row by row, with a copy of its
    weights for each: 16 rows of a wide vocabulary took 300 times as long in bfloat16 on a CPU.

    Args:
        logits_to_keep: as transformers has it, the last n positions (0: all), or a tensor of positions.
        length: how many positions there are.
        device: of the positions.
    """
    if isinstance(logits_to_keep, torch.Tensor) or logits_to_keep == 0:
        return logits_to_keep
    return torch.arange(max(0, length - logits_to_keep), length, device=device)


def check_length(name: str, input_ids: torch.LongTensor, limit: int, past_length: int = 0):
    """Refuse (batch, length) tokens that are none, or that with `past_length` cached ones are more than `limit`.

    Raises:
        ValueError: either; the error names `name`, the length and the limit.
    """
    length = input_ids.shape[1] + past_length
    if length == 0:
        raise ValueError(f"`{name}` has no tokens: its length is 0, at least 1 is needed.")
    if length > limit:
        raise ValueError(
            f"`{name}` reaches {length} tokens, but there are positions for {limit} only. Shorten the text, or let the "
            "processor truncate it (it does by default); when generating, ask for fewer new tokens."
        )


def check_overflow(logits: torch.Tensor):
    """Refuse float16 logits, (..., vocabulary), that are not numbers: some part went beyond the range of float16.

    Raises:
        FloatingPointError: a row's highest logit is infinite or not a number.
    """
    if logits.dtype != torch.float16 or torch.compiler.is_compiling():
        return
    # The highest alone: a token may be forbidden by minus infinity.
    if not bool(logits.amax(dim=-1).isfinite().all()):
        raise FloatingPointError(
            "The logits are not finite: a part of this model has overflowed in float16, which ends at 65504. Load the model "
            "in bfloat16 or float32, `from_pretrained(..., dtype=torch.bfloat16)`."
        )


def label_loss(
    logits: torch.Tensor, labels: torch.LongTensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Cross-entropy in float32 of the labels that are not -100: their mean, or their sum over `num_items_in_batch`.

    Args:
        logits: (..., vocabulary).
        labels: as many as there are rows of logits.
        num_items_in_batch: labels of a whole optimizer step, as the Trainer hands them over.

    Raises:
        ValueError: every label is -100.
    """
    if not torch.compiler.is_compiling() and not bool((labels != -100).any()):
        raise ValueError(
            "`labels` are -100 everywhere, so there is no position to learn from. Check the collator's loss positions "
            "and that no sentence lost its last word to truncation."
        )
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), labels.to(logits.device).flatten(), reduction=reduction
    )
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss if num_items_in_batch is None else loss / num_items_in_batch
