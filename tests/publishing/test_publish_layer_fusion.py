"""The encoder → LLM model on a Hub: the same publishing, its own remote code, loaded back without the package."""

import pytest
import torch
from huggingface_hub import HfApi

from tall_hf import compose_layer_fusion, load_light, publishing
from tall_hf.publishing.planning import is_published
from tall_hf.publishing.verification import predict_locally


@pytest.fixture(scope="module")
def folder(part, tmp_path_factory):
    """A saved model with a fusion that is not at its start; not to be changed."""
    model, processor = compose_layer_fusion(
        part("nllb"), part("llama"), source_fusion="global_softmax", source_lang="heb_Hebr"
    )
    with torch.no_grad():
        model.source_fusion.layer_logits.copy_(torch.tensor([0.0, 0.005]))
        model.end_vector.normal_(std=0.1)
    return publishing.save(model, processor, tmp_path_factory.mktemp("saved") / "fusion")


def test_the_plan_has_its_own_code_and_nothing_of_a_tall(folder):
    paths = [file.path_in_repo for file in publishing.plan(folder)]
    code = {path for path in paths if path.endswith(".py")}
    assert code == {
        "configuration_layer_fusion.py",
        "modeling_layer_fusion.py",
        "processing_layer_fusion.py",
        "part_configs_tall.py",
        "frozen_parts_tall.py",
        "fusion_tall.py",
        "labels_layer_fusion.py",
        "saved_weights_tall.py",
        "text_rows_tall.py",
    }
    assert code == {path.name for path in folder.glob("*.py")}
    assert {"model.safetensors", "config.json", "processor_config.json", "source_tokenizer/tokenizer.json"} <= set(
        paths
    )
    assert all(is_published(path) for path in paths)


def test_published_and_verified_without_the_package(folder, hub):
    repo_id = f"{hub.organization}/fusion"
    published = publishing.publish(folder, repo_id)
    expected = predict_locally(folder)
    assert expected.texts.keys() == {"text", "prompt"}
    assert set(HfApi().list_repo_files(repo_id)) == {file.path_in_repo for file in published.files} | {
        ".gitattributes"
    }
    assert publishing.update_code(repo_id).files == []

    commit = HfApi().upload_file(
        path_or_fileobj=b"raise ImportError('old')\n", path_in_repo="modeling_layer_fusion.py", repo_id=repo_id
    )
    updated = publishing.update_code(repo_id, verify=False)
    assert [file.path_in_repo for file in updated.files] == [
        "modeling_layer_fusion.py"
    ] and updated.commit != commit.oid
    publishing.verify(repo_id, updated.commit, expected)


def test_a_model_that_each_call_tells_the_language_can_be_verified(part, tmp_path):
    model, processor = compose_layer_fusion(part("nllb"), part("llama"))
    publishing.save(model, processor, tmp_path / "fusion")
    first, again = (predict_locally(tmp_path / "fusion") for _ in range(2))
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())


def test_the_light_form(part, hub, tmp_path):
    specs = {}
    for role, kind in (("encoder", "nllb"), ("llm", "llama")):
        specs[role] = f"{hub.organization}/{role}"
        HfApi().create_repo(specs[role])
        HfApi().upload_folder(repo_id=specs[role], folder_path=part(kind))
    model, processor = compose_layer_fusion(**specs, source_fusion="token_softmax", source_lang="heb_Hebr")
    folder = publishing.save(model, processor, tmp_path / "fusion")
    published = publishing.publish(folder, f"{hub.organization}/light", trainable_only=True)
    weights = next(file for file in published.files if file.path_in_repo == "model.safetensors")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert weights.size < 4 * trained + 10_000
    loaded, loaded_processor = load_light(f"{hub.organization}/light@{published.commit}")
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded_processor.source_lang == "heb_Hebr"


def test_a_local_part_is_no_base_for_the_light_form(folder):
    with pytest.raises(ValueError, match="'encoder' of .* is no pinned revision on the Hub"):
        publishing.plan(folder, trainable_only=True)
