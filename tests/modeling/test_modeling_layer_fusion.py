"""LayerFusionForCausalLM: what its LLM reads, computed by hand, under any padding, cached, trained, saved and loaded."""

import copy
import os
import subprocess
import sys
import sysconfig

import parts
import pytest
import torch
import transformers
from batches import real_positions
from safetensors.torch import load_file
from torch.nn import functional

from tall_hf.modeling.configuration_layer_fusion import LayerFusionConfig
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor


CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WIDTH = 24
SMALL = {"d_model": WIDTH, "max_position_embeddings": 40, "init_std": parts.LOUD}
SMALL |= {"encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 40}
SMALL |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 40}
ENCODERS = {
    "mt5": lambda n: transformers.MT5Config(
        vocab_size=n,
        d_model=WIDTH,
        d_kv=12,
        d_ff=40,
        num_layers=3,
        num_decoder_layers=1,
        num_heads=2,
        initializer_factor=1.0,
    ),
    "m2m_100": lambda n: transformers.M2M100Config(vocab_size=n, **SMALL),
    "marian": lambda n: transformers.MarianConfig(vocab_size=n, pad_token_id=n - 1, **SMALL),
    "xlm-roberta": lambda n: transformers.XLMRobertaConfig(
        vocab_size=n,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=44,
        initializer_range=parts.LOUD,
        pad_token_id=1,
    ),
}
TEXTS = ["דנה גרה בחיפה", "שלום", "הילדה קוראת ספר על ים גדול"]
PROMPTS = ["Who lives", "Hello", "The girl reads a book about"]
ANSWERS = ["Dana", "world", "sea"]


CHILD = f"""
import importlib.util, sys
site_packages, folder = sys.argv[1:]
sys.path.append(site_packages)
assert importlib.util.find_spec("tall_hf") is None
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor
torch.set_num_threads({{threads}})
remote = {{{{"trust_remote_code": True}}}}
processor = AutoProcessor.from_pretrained(folder + "/model", **remote)
inputs = processor(text={TEXTS}, prompt="Who", return_tensors="pt")
for auto_class in (AutoModel, AutoModelForCausalLM):
    model = auto_class.from_pretrained(folder + "/model", **remote)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(model).__name__ == "LayerFusionForCausalLM"
    with torch.no_grad():
        logits = model(**inputs).logits
model.generate(**inputs, max_new_tokens=2)
scores = model.label_log_probabilities({TEXTS}, processor, {ANSWERS}, prompt="Who")
save_file({{{{"logits": logits, "scores": scores}}}}, folder + "/out.safetensors")
"""


@pytest.fixture
def made(part):
    """`made(encoder, llm, **switches)` is a model with random weights and its processor."""

    def build(encoder="mt5", llm="qwen2", **switches):
        source_tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=parts._bpe(parts.HEBREW + parts.ENGLISH), eos_token="</s>", pad_token="<pad>"
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(part(llm))
        torch.manual_seed(3)
        model = LayerFusionForCausalLM(
            LayerFusionConfig(
                encoder_config=ENCODERS[encoder](len(source_tokenizer)),
                llm_config=transformers.AutoConfig.from_pretrained(part(llm)),
                **switches,
            )
        ).eval()
        if switches.get("source_fusion") == "global_softmax":
            model.source_fusion.layer_logits.data.normal_(std=0.01)
        for parameter in (p for p in model.parameters() if p.requires_grad):
            if switches.get("source_fusion") != "global_softmax" or parameter.dim() > 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        return model, LayerFusionProcessor(tokenizer, source_tokenizer)

    return build


def padded(processor, rows, sides=("right", "left"), garbage=0):
    """The model's inputs from `processor(text=..., ...)`, padded by random ids on these sides (source, LLM)."""
    generator = torch.Generator().manual_seed(garbage)
    data = {}
    groups = {"source_input_ids": sides[0], "input_ids": sides[1], "mm_token_type_ids": sides[1], "labels": sides[1]}
    for name, side in groups.items():
        if name not in rows:
            continue
        length = max(map(len, rows[name]))
        value = {"mm_token_type_ids": 0, "labels": -100}.get(name)
        out = torch.randint(4, 40, (len(rows[name]), length), generator=generator)
        out = out if value is None else torch.full_like(out, value)
        mask = torch.zeros_like(out)
        for i, row in enumerate(rows[name]):
            columns = slice(length - len(row), length) if side == "left" else slice(0, len(row))
            out[i, columns], mask[i, columns] = torch.tensor(row), 1
        data[name] = out
        if name == "source_input_ids":
            data["source_attention_mask"] = mask
        if name == "input_ids":
            data["attention_mask"] = mask
    return data


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_the_llm_reads_beginning_source_end_and_prompt(made, encoder):
    model, processor = made(encoder, "llama", source_fusion="last")
    for text, prompt in zip(TEXTS, PROMPTS, strict=True):
        read = []
        handle = model.llm.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs), with_kwargs=True)  # noqa: B023
        got = model(**processor(text=text, prompt=prompt, return_tensors="pt")).logits
        handle.remove()
        source = processor.source_tokenizer(text, return_tensors="pt")["input_ids"]
        states = model.encoder(input_ids=source, attention_mask=torch.ones_like(source)).last_hidden_state
        mapped = states @ model.mapping.weight.T + model.mapping.bias
        embed = model.llm.get_input_embeddings()
        begin = embed(torch.tensor([[processor.tokenizer.bos_token_id]]))
        words = embed(processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"])
        expected = torch.cat([begin, mapped, model.end_vector, words], dim=1)
        torch.testing.assert_close(read[0]["inputs_embeds"], expected, **CLOSE)
        torch.testing.assert_close(got, model.llm(inputs_embeds=expected).logits, **CLOSE)


@torch.no_grad()
def test_the_mapping_of_mindmerger_and_the_end_vector_of_langbridge(made):
    model, _ = made(mapping_type="mlp", source_fusion="last")
    states = torch.randn(2, 3, WIDTH)
    first, _, second = model.mapping
    expected = functional.relu(states @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(model.mapping(states), expected)
    assert first.out_features == 2 * WIDTH
    config = made(source_fusion="last")[0].config
    for std in (0.0, 1.0):
        config = copy.deepcopy(config)
        config.end_vector_std = std
        vector = LayerFusionForCausalLM(config).end_vector
        assert vector.std().item() == pytest.approx(std, abs=0.4)


@torch.no_grad()
def test_all_layers_are_fused(made):
    for encoder in ENCODERS:
        model, processor = made(encoder, source_fusion="global_softmax")
        inputs = processor(text=TEXTS[:1], return_tensors="pt")
        ids, mask = inputs["source_input_ids"], inputs["source_attention_mask"]
        outputs = model.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        layers = [*outputs.hidden_states[1:-1], outputs.last_hidden_state]
        assert len(layers) == 3
        weights = model.source_fusion.layer_weights(layers)[0, 0]
        assert weights.max() < 0.9
        mixed = sum(weight * states for weight, states in zip(weights, layers, strict=True))
        vectors, _ = model.encode_source(ids, mask)
        torch.testing.assert_close(vectors[:, :-1], model.mapping(mixed), **CLOSE)


# --- padding and cache -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", ["last", "global_softmax", "token_softmax"])
@torch.no_grad()
def test_each_row_gets_what_it_gets_alone_however_it_is_padded(made, encoder, fusion):
    model, processor = made(encoder, source_fusion=fusion)
    alone = [
        model(**processor(text=t, prompt=p, return_tensors="pt")).logits[0]
        for t, p in zip(TEXTS, PROMPTS, strict=True)
    ]
    rows = processor(text=TEXTS, prompt=PROMPTS)
    assert len(set(map(len, rows["source_input_ids"]))) == len(set(map(len, rows["input_ids"]))) == len(TEXTS)
    for sides in (("left", "left"), ("right", "left"), ("right", "right"), ("left", "right")):
        inputs = padded(processor, rows, sides, garbage=1)
        for got, expected in zip(real_positions(model(**inputs).logits, inputs["attention_mask"]), alone, strict=True):
            torch.testing.assert_close(got, expected, **CLOSE)


def test_generation_is_cached_and_the_same_in_a_batch(made, llm):
    model, processor = made("mt5", llm)
    settings = {"max_new_tokens": 6, "do_sample": False, "no_repeat_ngram_size": 1}
    inputs = processor(text=TEXTS, prompt=PROMPTS, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    together = model.generate(**inputs, **settings)[:, length:]
    assert torch.equal(model.generate(**inputs, use_cache=False, **settings)[:, length:], together)
    assert torch.equal(model.generate(**inputs, num_beams=2, **settings)[:, :length], inputs["input_ids"])
    for i, (text, prompt) in enumerate(zip(TEXTS, PROMPTS, strict=True)):
        row = processor(text=text, prompt=prompt, return_tensors="pt")
        alone = model.generate(**row, **settings)[0, row["input_ids"].shape[1] :]
        eos = processor.tokenizer.eos_token_id
        expected = alone[: (alone == eos).nonzero()[0] + 1] if (alone == eos).any() else alone
        assert together[i, : len(expected)].tolist() == expected.tolist()
    # The source is encoded once.
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**inputs, **settings)
    assert len(calls) == 1


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["last", "global_softmax", "token_softmax"])
def test_only_fusion_mapping_and_end_vector_learn_from_the_answers(made, fusion):
    model, processor = made(source_fusion=fusion)
    rows = processor(text=TEXTS, prompt=PROMPTS, text_target=ANSWERS)
    inputs = processor.pad(rows)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if fusion == "token_softmax":
        model.source_fusion.mixer.self_attn.dropout = 0.0
    expected = model(**inputs)
    logits, labels = expected.logits[:, :-1], inputs["labels"][:, 1:]
    by_hand = functional.cross_entropy(logits[labels != -100], labels[labels != -100])
    torch.testing.assert_close(expected.loss, by_hand)
    answers = [processor.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
    learned = [row[row != -100].tolist() for row in inputs["labels"]]
    assert learned == [answer + [processor.tokenizer.eos_token_id] for answer in answers]

    model.train()
    assert not model.llm.training and not model.encoder.training and model.mapping.training
    seen = []
    model.llm.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, expected.loss, **CLOSE)
    assert seen == [max(map(len, learned))]  # of all positions, those before a label
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("encoder.", "llm.")) for name in trained)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.grad is not None)


def test_accumulated_small_batches_equal_the_big_one(made):
    model, processor = made(source_fusion="last")
    rows = processor(text=TEXTS, prompt=PROMPTS, text_target=ANSWERS)
    whole = processor.pad(rows)
    count = (whole["labels"] != -100).sum()
    total = model(**whole, num_items_in_batch=count).loss
    pieces = [
        model(**processor.pad({name: row[i : i + 1] for name, row in rows.items()}), num_items_in_batch=count).loss
        for i in range(len(TEXTS))
    ]
    torch.testing.assert_close(sum(pieces), total, **CLOSE)
    torch.testing.assert_close(total, model(**whole).loss, **CLOSE)


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["last", "global_softmax", "token_softmax"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(made, encoder, fusion, tmp_path):
    model, processor = made(encoder, source_fusion=fusion)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = LayerFusionForCausalLM.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    again = LayerFusionProcessor.from_pretrained(tmp_path)
    inputs = processor(text=TEXTS, prompt=PROMPTS, return_tensors="pt")
    for name, value in again(text=TEXTS, prompt=PROMPTS, return_tensors="pt").items():
        assert torch.equal(value, inputs[name])
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_it_loads_as_remote_code_where_this_package_is_not(made, tmp_path):
    model, processor = made()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    travelled = {path.name for path in (tmp_path / "model").glob("*.py")}
    own = {
        "configuration_layer_fusion.py",
        "modeling_layer_fusion.py",
        "processing_layer_fusion.py",
        "labels_layer_fusion.py",
    }
    shared = {
        "part_configs_tall.py",
        "frozen_parts_tall.py",
        "fusion_tall.py",
        "saved_weights_tall.py",
        "text_rows_tall.py",
    }
    assert travelled == own | shared
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    # -S reads no .pth file, so an editable installation of this package stays out of reach.
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        CHILD.format(threads=torch.get_num_threads()),
        sysconfig.get_path("purelib"),
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    inputs = processor(text=TEXTS, prompt="Who", return_tensors="pt")
    theirs = load_file(tmp_path / "out.safetensors")
    with torch.no_grad():
        assert torch.equal(theirs["logits"], model(**inputs).logits)
    assert torch.equal(theirs["scores"], model.label_log_probabilities(TEXTS, processor, ANSWERS, prompt="Who"))


def test_parameters_are_counted(made):
    model, _ = made(source_fusion="global_softmax")
    table = {name: counts for name, *counts in model.parameter_table()}
    assert list(table) == ["encoder", "source fusion", "mapping", "end vector", "LLM", "total"]
    assert table["source fusion"] == [4, 4]
    assert table["mapping"] == [WIDTH * 32 + 32] * 2
    assert table["end vector"] == [32, 32]
    assert table["encoder"][1] == table["LLM"][1] == 0
    assert table["total"][0] == sum(p.numel() for p in model.parameters())


def test_the_papers_model_is_the_default():
    with torch.device("meta"):
        table = {name: counts for name, *counts in LayerFusionForCausalLM(LayerFusionConfig()).parameter_table()}
    assert table["LLM"] == [1_235_814_400, 0]  # Llama-3.2-1B
    assert table["mapping"] == [1024 * 2048 + 2048] * 2


# --- errors ----------------------------------------------------------------------------------------------------------


def test_places_and_vectors_must_agree(made):
    model, processor = made()
    inputs = processor(text=TEXTS, return_tensors="pt")
    with pytest.raises(ValueError, match="each needs as many as it has source tokens, and one"):
        model(**{**inputs, "mm_token_type_ids": torch.zeros_like(inputs["input_ids"])})
    inputs.pop("mm_token_type_ids")
    with pytest.raises(ValueError, match="`mm_token_type_ids` must say"):
        model(**inputs)
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        model()


def test_wrong_settings_and_texts(made):
    _, processor = made()
    with pytest.raises(ValueError, match="`mapping_type` must be one of 'linear', 'mlp', got 'quadratic'"):
        LayerFusionConfig(mapping_type="quadratic")
    with pytest.raises(ValueError, match="end_vector_std"):
        LayerFusionConfig(end_vector_std=-1)
    with pytest.raises(ValueError, match="an encoder-decoder; the LLM must be"):
        LayerFusionConfig(llm_config={"model_type": "t5"})
    with pytest.raises(ValueError, match="Got 1 prompts for 2 texts"):
        processor(text=TEXTS[:2], prompt=["one"])
    with pytest.raises(TypeError, match="'labels'"):
        processor(text=TEXTS, labels=[1])


def test_a_source_can_be_repeated_in_the_llms_tokens(made):
    _, processor = made()
    processor.repeat_source = True
    row = processor(text="Dana lives", prompt="in Haifa")
    words = [token for token, kind in zip(row["input_ids"][0], row["mm_token_type_ids"][0], strict=True) if kind == 0]
    assert processor.tokenizer.decode(words) == "Dana lives in Haifa"
