"""TALLForCausalLM as a module: what trains, what stays frozen, attention, dtype, checkpointing, and its errors."""

import contextlib
import copy

import pytest
import torch
from batches import batch, random_rows
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from tall_hf import TALLForCausalLM, compose


def training_batch(model, processor):
    """Four padded rows with a loss on the last token of each."""
    inputs = batch(random_rows(model, processor))
    labels = torch.full_like(inputs["decoder_input_ids"], -100)
    labels[:, -1] = torch.tensor([4, 5, 6, 7])
    return {**inputs, "labels": labels}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def expected_trainable(model):
    """By the paper's table of stages: alignments and custom transformers, without their fixed positions."""
    adapters = ("source_alignment", "source_decoder", "target_alignment", "target_encoder", "gate")
    return {
        name
        for name, _ in model.named_parameters()
        if name.split(".")[0] == "encoder" and name.split(".")[1] in adapters and "embed_positions" not in name
    }


def test_trainable_modules_of_each_bridge(composed, bridge):
    model, _ = composed(bridge)
    modules = {name.split(".")[1] for name in trainable(model)}
    assert (
        modules
        == {"target_alignment", "target_encoder"}
        | {
            "marian": {"source_alignment", "source_decoder"},
            "gated": {"source_alignment", "source_decoder", "gate"},
            "concat": {"source_alignment"},
            "none": set(),
        }[bridge]
    )
    assert trainable(model) == expected_trainable(model)


def test_gradients_reach_every_trainable_tensor_and_no_other(fresh, bridge):
    model, processor = fresh(bridge)
    model.train()
    model(**training_batch(model, processor)).loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif name.endswith("k_proj.bias"):
            # Adds the same to every score of a query, which the softmax takes away again.
            assert parameter.grad.abs().max() < 1e-5, name
        else:
            assert parameter.grad.abs().max() > 1e-6, name


def test_a_closed_gate_feeds_the_llm_its_own_embeddings(part_folders):
    model, processor = compose(**part_folders(), source_bridge="gated", gate_init=0.0)
    assert model.encoder.gate.item() == 0
    inputs = batch(random_rows(model, processor))
    fed = {}
    model.encoder.llm.register_forward_pre_hook(lambda *call: fed.update(call[2]), with_kwargs=True)
    model(**inputs)
    own = model.encoder.llm.get_input_embeddings()(inputs["llm_input_ids"])
    assert torch.equal(fed["inputs_embeds"], own)
    with torch.no_grad():
        model.encoder.gate.fill_(0.5)
    model(**inputs)
    assert not torch.allclose(fed["inputs_embeds"], own, atol=1e-2)


def test_a_gate_starts_where_the_configuration_says(part_folders):
    model, _ = compose(**part_folders(), source_bridge="gated", gate_init=0.25)
    assert model.encoder.gate.item() == 0.25


def test_a_closed_gate_learns_to_open(part_folders):
    model, processor = compose(**part_folders(), source_bridge="gated", gate_init=0.0)
    model(**training_batch(model, processor)).loss.backward()
    assert model.encoder.gate.grad.abs().item() > 1e-6
    assert not any(p.grad.any() for p in model.encoder.source_decoder.parameters() if p.grad is not None)


def test_embedding_std_is_that_of_the_llms_embeddings(composed):
    for bridge in ("gated", "concat"):
        encoder = composed(bridge)[0].encoder
        expected = encoder.llm.get_input_embeddings().weight.std()
        torch.testing.assert_close(encoder.embedding_std, expected.reshape(1))
    assert composed("marian")[0].encoder.embedding_std is None


def test_frozen_from_construction_on(tiny_config, bridge):
    config = tiny_config(source_bridge=bridge)
    built = TALLForCausalLM(config)
    with torch.device("meta"):
        on_meta = TALLForCausalLM(config)
    for model in (built, on_meta, built.to(torch.float64), copy.deepcopy(built), built.half().float()):
        assert trainable(model) == expected_trainable(model)
        assert trainable(model)
    built.train()
    built.eval()
    assert trainable(built) == expected_trainable(built)


def without_dropout(*modules):
    """Switch off the dropout of these modules, however they hold it."""
    for module in (inner for outer in modules if outer is not None for inner in outer.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def test_train_keeps_dropout_off_in_frozen_parts(fresh, bridge):
    model, processor = fresh(bridge)
    encoder, inputs = model.encoder, batch(random_rows(model, processor))
    assert model.config.lr_hr_config.dropout == model.config.hr_lr_config.dropout == 0.1
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(model(**inputs).logits, expected)  # evaluation is deterministic
        model.train()
        assert model.training
        assert not torch.allclose(model(**inputs).logits, expected, atol=1e-3)  # the adapters have dropout
        without_dropout(
            encoder.source_alignment, encoder.source_decoder, encoder.target_alignment, encoder.target_encoder
        )
        assert torch.equal(model(**inputs).logits, expected)
        model.eval()
        assert torch.equal(model(**inputs).logits, expected)
    assert not any(module.training for module in model.modules())


def test_deepcopy_is_equal_and_independent(fresh, bridge):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(twin(**inputs).logits, expected)
        assert trainable(twin) == trainable(model)
        assert twin.lm_head.weight is twin.decoder.get_input_embeddings().weight
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(fresh, bridge, dtype):
    model, processor = fresh(bridge)
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        expected = model(**inputs).logits
        logits = model.to(dtype)(**inputs).logits
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    tokens = inputs["decoder_attention_mask"].bool()
    correlation = torch.corrcoef(torch.stack([logits[tokens].float().flatten(), expected[tokens].flatten()]))[0, 1]
    assert correlation > 0.99


def test_bf16_trains(fresh, bridge):
    model, processor = fresh(bridge)
    model.to(torch.bfloat16).train()
    loss = model(**training_batch(model, processor)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_frozen_parts_may_keep_a_dtype_of_their_own(fresh, bridge):
    model, processor = fresh(bridge)
    inputs = training_batch(model, processor)
    with torch.no_grad():
        expected = model(**inputs).loss
    for part in (model.encoder.translator, model.encoder.llm, model.decoder, model.lm_head):
        part.to(torch.bfloat16)
    model.train()
    without_dropout(model)
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    loss.backward()
    assert {p.grad.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize(
    ("bridge", "translator"),
    [("marian", "marian"), ("concat", "marian"), ("gated", "m2m_100"), ("gated", "mbart50"), ("none", "nllb")],
)
def test_eager_equals_sdpa(part_folders, tmp_path, bridge, translator):
    models = {}
    folders = part_folders(translator)  # may write them, which draws random numbers
    for implementation in ("eager", "sdpa"):
        torch.manual_seed(0)
        models[implementation], processor = compose(
            **folders, source_bridge=bridge, attn_implementation=implementation
        )
        chosen = {
            name: module.config._attn_implementation
            for name, module in models[implementation].named_modules()
            if "Attention" in type(module).__name__ and hasattr(module, "config")
        }
        assert chosen
        assert set(chosen.values()) == {implementation}, chosen
    models["eager"].save_pretrained(tmp_path)
    models["reloaded"] = TALLForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    inputs = batch(random_rows(models["eager"], processor))
    tokens = inputs["decoder_attention_mask"].bool()
    with torch.no_grad():
        logits = {name: model(**inputs).logits[tokens] for name, model in models.items()}
    torch.testing.assert_close(logits["eager"], logits["sdpa"], rtol=1e-4, atol=1e-4)
    assert torch.equal(logits["eager"], logits["reloaded"])


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients_by_computing_layers_again(fresh, bridge, use_reentrant):
    model, processor = fresh(bridge)
    without_dropout(model)  # it would draw other numbers
    inputs = training_batch(model, processor)
    runs = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.train()
        model.zero_grad()
        with counted_layers(model) as calls:
            loss = model(**inputs).loss
            loss.backward()
        runs.append((loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, calls))
    (loss, grads, once), (same_loss, same_grads, twice) = runs
    torch.testing.assert_close(same_loss, loss)
    assert same_grads.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(same_grads[name], grad)
    # Nothing flows back into the source translator; the layers behind an adapter run a second time, frozen ones too.
    again = ["decoder", "encoder.target_encoder"]
    if bridge != "none":
        again += ["encoder.llm"]
    if bridge in ("marian", "gated"):
        again += ["encoder.source_decoder"]
    for name in once:
        if name.startswith("encoder.translator"):
            assert (once[name], twice[name]) == (1, 1), name
    for part in again:
        layers = [name for name in once if name.startswith(f"{part}.layers")]
        assert layers
        assert all((once[name], twice[name]) == (1, 2) for name in layers), part


@contextlib.contextmanager
def counted_layers(model):
    """How often each Transformer layer computes: `{name: times}`, by its first inner module that is called."""
    calls, handles = {}, []

    def count(name, first):
        def hook(module, *_):
            if first.setdefault(name, module) is module:
                calls[name] = calls.get(name, 0) + 1

        return hook

    first = {}
    for name, layer in model.named_modules():
        if isinstance(layer, GradientCheckpointingLayer):
            handles += [inner.register_forward_hook(count(name, first)) for inner in layer.children()]
    yield calls
    for handle in handles:
        handle.remove()
