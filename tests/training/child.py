"""A training in a process of its own, or in several under torchrun: `python child.py REQUEST.json`.

The request names a saved TALL, saved datasets, the trainer's settings, and what shall happen; rank 0 writes a result.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from datasets import load_from_disk
from transformers import Trainer, TrainerCallback, TrainingArguments


sys.path.insert(0, str(Path(__file__).parents[1]))
from trainings import without_dropout  # noqa: E402

from tall_hf import (  # noqa: E402
    LastTokenCollator,
    TALLForCausalLM,
    TALLProcessor,
    TALLTrainer,
    TALLTrainingArguments,
)
from tall_hf.training.light import frozen_pins, save_light  # noqa: E402


class KillAt(TrainerCallback):
    """Ends the process as a power cut would, after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def accuracy(evaluation):
    """What a user's `compute_metrics` does with logits and labels; raises where they are not aligned."""
    logits, labels = evaluation.predictions, evaluation.label_ids
    learned = labels != -100
    assert logits.shape[:2] == labels.shape, (logits.shape, labels.shape)
    return {"accuracy": float((logits.argmax(-1) == labels)[learned].mean()), "tokens": int(learned.sum())}


def train(request, model, processor):
    """Train and evaluate; losses by step and the evaluation's metrics."""
    rows = load_from_disk(request["rows"])
    if request.get("streaming"):
        rows = rows.to_iterable_dataset()
    common = {
        "model": model,
        "train_dataset": rows,
        "eval_dataset": load_from_disk(request["eval_rows"]) if "eval_rows" in request else None,
        "callbacks": [KillAt(request["kill_at"])] if "kill_at" in request else None,
    }
    if request.get("plain"):
        trainer = Trainer(
            args=TrainingArguments(**request["settings"]),
            data_collator=LastTokenCollator(processor),
            compute_metrics=accuracy,
            **common,
        )
    else:
        trainer = TALLTrainer(args=TALLTrainingArguments(**request["settings"]), processing_class=processor, **common)
    trainer.train(resume_from_checkpoint=request.get("resume"))
    metrics = trainer.evaluate() if common["eval_dataset"] is not None else {}
    if trainer.is_world_process_zero():
        torch.save(model.state_dict(), request["weights"])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "metrics": metrics, "world_size": trainer.args.world_size}


def train_sharded(request, model, processor):
    """A few steps of a hand-written loop, fully sharded where there are several processes; then a light checkpoint."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    pins, world_size, rank = frozen_pins(model), int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world_size > 1:
        torch.distributed.init_process_group("gloo")
        mesh = torch.distributed.init_device_mesh("cpu", (world_size,))
        for module in list(model.modules()):
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
    # Adam would make a step of full size from the rounding errors of a gradient that is zero.
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    rows, collator, losses = list(load_from_disk(request["rows"])), LastTokenCollator(processor), []
    model.train()
    for step in range(request["steps"]):
        batch = collator(rows[8 * step : 8 * step + 8])
        tokens = (batch["labels"] != -100).sum()
        share = {name: value[rank::world_size] for name, value in batch.items()}
        # Sharding averages gradients over the processes, so each loss is scaled by their number.
        loss = model(**share, num_items_in_batch=tokens / world_size).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        if world_size > 1:
            torch.distributed.all_reduce(total)
        losses.append(float(total / world_size))
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        save_light(model, processor, request["checkpoint"], state_dict=weights, pins=pins)
    return {"losses": losses, "world_size": world_size}


def main():
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = TALLForCausalLM.from_pretrained(request["model"])
    processor = TALLProcessor.from_pretrained(request["model"])
    if not request.get("dropout"):
        without_dropout(model)
    result = (train_sharded if "steps" in request else train)(request, model, processor)
    if int(os.environ.get("RANK", 0)) == 0:
        Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
