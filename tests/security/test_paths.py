"""Names that come from elsewhere lead to no file beyond the folder they belong in."""

import json
import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file
from typer.main import get_command

from tall_hf import load_light, publishing
from tall_hf.classification.evaluate import evaluate_classification
from tall_hf.classification.tasks import ClassificationTask
from tall_hf.cli import app
from tall_hf.evaluation.run import check_approaches
from tall_hf.loading import Component
from tall_hf.sweep.grid import SECTIONS, read_grid
from tall_hf.training.light import PINS_NAME


BAD_NAMES = [
    "..",
    ".",
    "../escaped",
    "a/../../escaped",
    "/nowhere/escaped",
    "a\\..\\escaped",
    "a\nb",
    ".hidden",
    "~",
    "C:x",
    "a\0b",
]


@pytest.fixture(scope="module")
def folder(composed, tmp_path_factory):
    """A saved TALL; not to be changed."""
    return publishing.save(*composed("gated"), tmp_path_factory.mktemp("saved") / "tall")


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of it, beside which lies something secret."""
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    return shutil.copytree(folder, tmp_path / "tall")


@pytest.mark.parametrize("name", [*BAD_NAMES, "", "a/b/c"])
def test_a_part_is_a_folder_that_exists_or_a_name_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    if name in (".", ".."):  # these are folders, in which nothing is
        assert Component.resolve(name).revision is None
        return
    with pytest.raises((ValueError, OSError)):
        Component.resolve(name)
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_model_is_published_under_a_name_of_the_hub_alone(hub, folder):
    before = set(hub.repositories)
    for name in [*BAD_NAMES, "", "a/b/c"]:
        with pytest.raises((ValueError, OSError)):
            publishing.publish(folder, name, verify=False)
    assert set(hub.repositories) == before
    assert not hub.unknown


def test_files_of_a_hostile_repository_stay_in_the_cache(hub, folder, tmp_path):
    repo_id = f"{hub.organization}/hostile"
    api = HfApi()
    api.create_repo(repo_id)
    for name in ("config.json", "processor_config.json"):
        api.upload_file(repo_id=repo_id, path_in_repo=name, path_or_fileobj=folder / name)
    # What no client sends, and a Hub that is not ours might.
    outside = tmp_path / "tall-escaped"
    blob = hub.storage.blob(b"{}")
    names = [
        PINS_NAME,
        "../../../escaped.json",
        "model/../../../../escaped.safetensors",
        str(outside),
        "..\\escaped",
    ]
    hub.repository(repo_id).commit("main", "dana", "hostile", "", dict.fromkeys(names, blob))
    with pytest.raises((ValueError, OSError)):
        load_light(repo_id)
    assert not list(tmp_path.iterdir())
    cache = hub.folder / "home" / "hub"
    found = [
        path for path in hub.folder.rglob("*escaped*") if cache / "models--tall-tests--hostile" not in path.parents
    ]
    assert not found


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "model/../../secret.safetensors", "../model-1-of-2.safetensors", "config.json"]
)
def test_an_index_publishes_weights_beside_it_alone(copied, name):
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="no file of weights"):
        publishing.plan(copied)


@pytest.mark.parametrize(
    "name", ["tokenizer.model", "llm_tokenizer/a-vocab.json", "generation_config.json", "model.safetensors"]
)
def test_a_link_out_of_the_folder_is_not_published(copied, tmp_path, name):
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=rf"{name} of .* is a link to .*secret\.json, outside of that folder"):
        publishing.plan(copied)


def test_a_folder_that_is_a_link_is_not_published(copied, tmp_path):
    shutil.move(copied / "llm_tokenizer", tmp_path / "elsewhere")
    (copied / "llm_tokenizer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link to .*elsewhere"):
        publishing.plan(copied)


def test_links_of_the_hubs_cache_and_within_the_folder_are_published(folder, copied, tmp_path):
    """A repository in the cache is a folder of links to the content of its files."""
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123"
    shutil.move(copied, snapshot)
    (repository / "blobs").mkdir()
    for number, path in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        shutil.move(path, repository / "blobs" / str(number))
        path.symlink_to(repository / "blobs" / str(number))
    (tmp_path / "linked").symlink_to(snapshot)
    expected = [(file.path_in_repo, file.size) for file in publishing.plan(folder)]
    for place in (snapshot, tmp_path / "linked"):
        assert [(file.path_in_repo, file.size) for file in publishing.plan(place)] == expected


def test_nothing_is_published_but_what_belongs_to_a_model(folder, copied):
    expected = {file.path_in_repo for file in publishing.plan(folder)}
    junk = [
        "training_args.bin",
        "optimizer.pt",
        "rng_state.pth",
        "pytorch_model.bin",
        "x.pkl",
        "x.joblib",
        ".env",
        "token",
        "id_rsa",
    ]
    for name in junk:
        (copied / name).write_bytes(b"junk")
        (copied / "llm_tokenizer" / name).write_bytes(b"junk")
    planned = publishing.plan(copied)
    assert {file.path_in_repo for file in planned} == expected
    for file in planned:
        content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
        # Pickles begin so, and archives of torch.save do.
        assert not content.startswith((b"\x80", b"PK")), file.path_in_repo


@pytest.mark.parametrize("name", [*BAD_NAMES, "", "a/b"])
def test_names_of_a_sweeps_rows_are_no_paths(tmp_path, name):
    commands = get_command(app).commands
    commands = {section: commands[section.replace("_", "-")] for section in SECTIONS if section != "train"}
    (tmp_path / "grid.yaml").write_text(json.dumps({"rows": {name: {}}}), encoding="utf-8")
    with pytest.raises(ValueError, match="a row's name is made of letters"):
        read_grid(tmp_path / "grid.yaml", commands)


@pytest.mark.parametrize("name", [*BAD_NAMES, "", "a/b"])
def test_names_in_an_evaluation_are_no_paths(tmp_path, name):
    approach = SimpleNamespace(name=name, protocols=("clean",), reads_translations=False)
    with pytest.raises(ValueError, match="An approach's name is also a folder's"):
        check_approaches([approach], {"clean": ["a question"]})
    with pytest.raises(ValueError, match="A task's name is of letters"):
        ClassificationTask(name=name, source="{text}", labels={0: "a", 1: "b"})
    task = ClassificationTask(name="task", source="{text}", labels={0: "a", 1: "b"}, languages=("en",))
    with pytest.raises(ValueError, match="A model's name is also a folder's"):
        evaluate_classification({name: "model"}, task, tmp_path / "output")
    with pytest.raises(ValueError, match="A language's code is also part of a file's name"):
        evaluate_classification({"model": "model"}, task, tmp_path / "output", languages=[name])
    assert not list(tmp_path.iterdir())
