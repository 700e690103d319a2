"""The paper's Qwen2.5-0.5B model with random weights: it builds, reads, learns and writes on this machine."""

import pytest
import torch

from tall_hf import TALLConfig, TALLForCausalLM


@pytest.mark.slow
def test_paper_size_model_builds_runs_learns_and_writes():
    # Built on the meta device and filled at once: initialising each module in turn would take minutes.
    with torch.device("meta"):
        model = TALLForCausalLM(TALLConfig(source_bridge="gated")).to(torch.bfloat16)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.fill_(1.0) if tensor.dim() == 1 else tensor.normal_(std=0.02)
        model.encoder.gate.fill_(0.1)
    model.tie_weights()
    rotary = model.encoder.llm.rotary_emb
    rotary.inv_freq.copy_(1e4 ** (-torch.arange(0, 64, 2) / 64))

    generator = torch.Generator().manual_seed(0)
    inputs = {
        "input_ids": torch.randint(1, 60_000, (2, 12), generator=generator),
        "llm_input_ids": torch.randint(1, 150_000, (2, 10), generator=generator),
        "decoder_input_ids": torch.randint(1, 65_000, (2, 8), generator=generator),
    }
    inputs["decoder_input_ids"][:, 0] = model.config.decoder_start_token_id
    labels = torch.full((2, 8), -100)
    labels[:, -1] = 5
    output = model(**inputs, labels=labels)
    assert output.logits.shape[-1] == 65_839
    assert output.loss.isfinite()
    output.loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert sum(dict(model.named_parameters())[name].numel() for name in trained) == 106_489_984 + 1
    assert model.encoder.gate.grad.isfinite()

    model.eval()
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=4, min_new_tokens=4)
    assert generated.shape == (2, 12)
    assert torch.equal(
        generated, model.generate(**inputs, do_sample=False, max_new_tokens=4, min_new_tokens=4, use_cache=False)
    )
