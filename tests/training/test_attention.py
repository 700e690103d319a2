"""Training attends by another kernel on a CPU, and learns the same."""

import contextlib

import pytest
import torch
from trainings import SHORT, make_rows, without_dropout

from tall_hf import TALLTrainer, TALLTrainingArguments
from tall_hf.training import adapter_trainer
from tall_hf.training.attention import training_attention


def fused_is_allowed():
    return torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("length", "device", "is_fused"), [(128, "cpu", False), (129, "cpu", True), (8, "meta", True)]
)
def test_the_fused_kernel_is_left_out_for_short_rows_on_a_cpu(length, device, is_fused):
    reduced = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    inputs = {"input_ids": torch.zeros(2, length, device=device), "num_items_in_batch": torch.tensor(2)}
    with training_attention(inputs):
        assert fused_is_allowed() == is_fused
    assert fused_is_allowed()
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() == reduced


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_has_the_gradients_of_the_fused_kernel(fresh, tmp_path, monkeypatch, checkpointing):
    model, processor = fresh("gated")
    kernels = []
    model.encoder.llm.register_forward_hook(lambda *_: kernels.append(fused_is_allowed()))
    arguments = TALLTrainingArguments(
        **SHORT, output_dir=str(tmp_path), gradient_checkpointing=checkpointing, save_total_limit=None
    )
    rows = make_rows(processor, 4)
    trainer = TALLTrainer(without_dropout(model), arguments, train_dataset=rows, processing_class=processor)
    batch = trainer.train_collator(list(rows))

    def learn():
        model.train().zero_grad()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        return loss.detach(), {n: weight.grad for n, weight in model.named_parameters() if weight.requires_grad}

    ours = learn()
    monkeypatch.setattr(adapter_trainer, "training_attention", lambda inputs: contextlib.nullcontext())
    torch.testing.assert_close(learn(), ours)
    assert kernels == [checkpointing, True]

    model.eval()
    trainer.compute_loss(model, batch)
    assert kernels[-1]
