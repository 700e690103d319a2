"""The hashes that stand for weights, models, tokenizers and settings."""

import copy
import hashlib
import json

import pytest
import torch

from tall_hf import TALLProcessor
from tall_hf.fingerprints import hash_tensors, json_digest, model_fingerprint, text_digest, tokenizer_digest


def digest_of(tensors, **options):
    digest = hashlib.sha256()
    hash_tensors(digest, tensors, **options)
    return digest.hexdigest()


def test_names_dtypes_shapes_and_bytes_in_the_order_of_the_names():
    tensors = {"b": torch.tensor([[1, 2]], dtype=torch.int16), "a": torch.tensor(0.5)}
    expected = b"a torch.float32 ()" + b"\x00\x00\x00\x3f" + b"b torch.int16 (1, 2)" + b"\x01\x00\x02\x00"
    assert digest_of(tensors) == hashlib.sha256(expected).hexdigest()
    without = b"a ()" + b"\x00\x00\x00\x3f" + b"b (1, 2)" + b"\x01\x00\x02\x00"
    assert digest_of(tensors, with_dtype=False) == hashlib.sha256(without).hexdigest()


def test_texts_are_joined_by_spaces_in_their_order():
    # Folders of translations and of answers are called so, and must be found again.
    assert text_digest("b", "a") == hashlib.sha256(b"b a").hexdigest()[:16] != text_digest("a", "b")


def test_everything_counts_but_the_layout_in_memory():
    weight = torch.arange(6.0).reshape(2, 3)
    assert digest_of({"a": weight.t().contiguous().t()}) == digest_of({"a": weight})
    others = [{"b": weight}, {"a": weight.reshape(3, 2)}, {"a": weight + 1}, {"a": weight.bfloat16()}]
    assert len({digest_of(tensors) for tensors in [{"a": weight}, *others]}) == 5


def test_without_dtype_the_same_numbers_are_the_same():
    weight = torch.arange(6.0)
    assert digest_of({"a": weight.bfloat16()}, with_dtype=False) == digest_of({"a": weight}, with_dtype=False)
    assert digest_of({"a": weight + 0.001}, with_dtype=False) != digest_of({"a": weight}, with_dtype=False)


def test_a_tokenizers_digest_does_not_depend_on_how_it_was_called(fresh):
    _, processor = fresh("gated", "nllb")
    for tokenizer in (processor.source_tokenizer, processor.llm_tokenizer):
        before = tokenizer_digest(tokenizer)
        tokenizer(["Dana lives in Haifa"] * 2, truncation=True, padding="max_length", max_length=3)
        assert tokenizer_digest(tokenizer) == before


def test_a_tokenizers_digest_does_not_depend_on_how_it_was_found(composed, tmp_path):
    composed()[1].save_pretrained(tmp_path)
    digests = set()
    for is_local, is_offline in ((True, False), (True, True), (False, False)):
        tokenizer = TALLProcessor.from_pretrained(tmp_path).tokenizer
        tokenizer.init_kwargs |= {"is_local": is_local, "local_files_only": is_offline}
        tokenizer.save_pretrained(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
        assert (saved["is_local"], saved["local_files_only"]) == (is_local, is_offline)
        digests.add(tokenizer_digest(tokenizer))
    assert len(digests) == 1


def test_a_json_value_is_known_whatever_the_order_of_its_names():
    # Folders of answers, predictions and stages that earlier versions wrote are found by these digits.
    assert (
        json_digest({"b": [1, None], "a": "שלום"}) == json_digest({"a": "שלום", "b": [1, None]}) == "0e4c20ba89434999"
    )
    assert json_digest([1]) != json_digest(["1"])
    with pytest.raises(TypeError):
        json_digest(object())


def test_a_models_fingerprint_changes_with_whatever_changes_its_answers(composed):
    model, processor = composed()
    llm, tokenizer = model.encoder.translator, processor.source_tokenizer
    known = {model_fingerprint(llm, tokenizer), model_fingerprint(copy.deepcopy(llm), tokenizer)}
    assert len(known) == 1
    changed = copy.deepcopy(llm)
    changed.generation_config.num_beams = 7
    known.add(model_fingerprint(changed, tokenizer))
    with torch.no_grad():
        next(changed.parameters())[0, 0] += 1.0
    known |= {
        model_fingerprint(changed, tokenizer),
        model_fingerprint(llm),
        model_fingerprint(llm, processor.llm_tokenizer),
    }
    assert len(known) == 5
