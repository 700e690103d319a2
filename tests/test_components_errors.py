"""compose with parts that are broken or do not belong together: each error names the part and what to do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from tall_hf import compose, loading


ROLES = ("lr_hr", "llm", "hr_lr")


@pytest.fixture
def copies(part_folders, tmp_path):
    """The parts in folders that a test may damage."""
    folders = {}
    for role in ROLES:
        folders[role] = tmp_path / role
        shutil.copytree(part_folders()[role], folders[role])
    return folders


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def pickle_weights(folder):
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


@pytest.mark.parametrize("role", ROLES)
def test_pickled_weights_need_a_permission(copies, role):
    pickle_weights(copies[role])
    with pytest.raises(OSError, match=f"{copies[role]} has no safetensors weights.*allow_pickle=True"):
        compose(**copies)
    model, _ = compose(**copies, allow_pickle=True)
    assert model.config.components[role]["name_or_path"] == str(copies[role])


def test_a_permitted_pickle_brings_the_same_weights(copies, part_folders):
    pickle_weights(copies["lr_hr"])
    model, _ = compose(**copies, allow_pickle=True)
    original = AutoModelForSeq2SeqLM.from_pretrained(part_folders()["lr_hr"]).state_dict()
    for name, value in model.encoder.translator.state_dict().items():
        assert torch.equal(value, original[name]), name


def test_a_pickle_with_code_is_never_run(copies, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (copies["llm"] / "model.safetensors").unlink()
    torch.save({"embed_tokens.weight": Harmful()}, copies["llm"] / "pytorch_model.bin")
    for allow_pickle in (False, True):
        with pytest.raises(Exception, match="(?i)safetensors|weights_only|unpickl|unsupported"):
            compose(**copies, allow_pickle=allow_pickle)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("role", ROLES)
def test_a_missing_weight_file(copies, role):
    (copies[role] / "model.safetensors").unlink()
    with pytest.raises(OSError, match=str(copies[role])):
        compose(**copies)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_weight_file(copies, role, share):
    weights = copies[role] / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OSError, match=f"{copies[role]}.* corrupted or incomplete"):
        compose(**copies)


@pytest.mark.parametrize("role", ROLES)
def test_a_weight_that_is_missing(copies, role):
    weights = copies[role] / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in sorted(tensors) if name.endswith("norm.weight"))
    del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{copies[role]} is not a whole checkpoint .*{name.split('.')[-2]}"):
        compose(**copies)


@pytest.mark.parametrize(("role", "field"), [("lr_hr", "d_model"), ("llm", "hidden_size"), ("hr_lr", "d_model")])
def test_weights_of_another_width(copies, role, field):
    edit_config(copies[role], **{field: 48})
    with pytest.raises(ValueError, match=f"{copies[role]} is not a whole checkpoint .*of another shape, such as"):
        compose(**copies, bridge_attention_heads=4)


@pytest.mark.parametrize("role", ROLES)
def test_a_tokenizer_larger_than_its_model(copies, role):
    field = "vocab_size"
    size = json.loads((copies[role] / "config.json").read_text(encoding="utf-8"))[field]
    edit_config(
        copies[role], vocab_size=size - 1, decoder_vocab_size=size - 1, pad_token_id=0, decoder_start_token_id=0
    )
    with pytest.raises(
        ValueError, match=f"tokenizer of {copies[role]} has token ids up to {size - 1}.* only {size - 1}"
    ):
        compose(**copies)


@pytest.mark.parametrize("role", ROLES)
def test_a_folder_without_a_checkpoint(copies, tmp_path, role):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises((OSError, ValueError), match=str(empty)):
        compose(**{**copies, role: empty})


def test_parts_in_each_others_place(copies):
    with pytest.raises(ValueError, match="`lr_hr_config` is of type 'qwen2'; supported translators are marian"):
        compose(lr_hr=copies["llm"], llm=copies["lr_hr"], hr_lr=copies["hr_lr"])


def test_a_repository_without_safetensors_names_the_branch_that_may_have_them(copies):
    pickle_weights(copies["lr_hr"])
    part = loading.Component(str(copies["lr_hr"]), "main")  # a revision: it came from the Hub
    with pytest.raises(OSError, match="@refs/pr/1.*allow_pickle=True"):
        loading.load_part(part, AutoModelForSeq2SeqLM, torch.float32, None, False)


def test_a_part_without_tokenizer_files_is_named(copies):
    for file in copies["llm"].glob("tokenizer*"):
        file.unlink()
    with pytest.raises(OSError, match=f"{copies['llm']}.*tokenizer|tokenizer of {copies['llm']}"):
        compose(**copies)


def test_an_encoder_decoder_is_no_llm(copies):
    with pytest.raises(ValueError, match="`llm_config` is of type 'marian', an encoder-decoder"):
        compose(lr_hr=copies["lr_hr"], llm=copies["hr_lr"], hr_lr=copies["hr_lr"])
