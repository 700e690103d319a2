"""Publishing to a Hub and loading back, in processes that do not have the package; and what the Hub refuses."""

import json
import shutil
from pathlib import Path

import parts
import pytest
import torch
from batches import batch, random_rows
from huggingface_hub import HfApi
from typer.testing import CliRunner

from tall_hf import TALLForCausalLM, compose, hub_cards, load_light, modeling, publishing
from tall_hf.cli import app
from tall_hf.kinds import TALL
from tall_hf.publishing import VerificationError, push, verification
from tall_hf.publishing.verification import predict_locally


CODE = Path(modeling.__file__).parent
CARDS = Path(hub_cards.__file__).parent


@pytest.fixture(scope="module")
def folder(composed, tmp_path_factory):
    """A saved TALL; not to be changed."""
    return publishing.save(*composed("gated"), tmp_path_factory.mktemp("saved") / "tall")


@pytest.fixture
def api(hub):
    hub.requests.clear()
    return HfApi(token=hub.token)


@pytest.fixture
def unverified(folder, hub, request):
    """`unverified(**changed)` is a repository with the model, in which these files are other ones."""

    def publish(**changed):
        repo_id = f"{hub.organization}/{request.node.name}"
        commit = publishing.publish(folder, repo_id, verify=False).commit
        for name, content in changed.items():
            path = f"{name}_tall.py"
            commit = HfApi().upload_file(path_or_fileobj=content.encode(), path_in_repo=path, repo_id=repo_id).oid
        return repo_id, commit

    return publish


def test_published_and_verified(folder, hub, api):
    repo_id = f"{hub.organization}/whole"
    card = "---\nlicense: apache-2.0\n---\n# A model\n"
    published = publishing.publish(folder, repo_id, private=True, card=card)
    assert published.url == f"{hub.endpoint}/{repo_id}"
    commits = api.list_repo_commits(repo_id)
    assert [commit.commit_id for commit in commits][:-1] == [published.commit]
    assert hub.repository(repo_id).private
    assert set(api.list_repo_files(repo_id)) == {file.path_in_repo for file in published.files} | {".gitattributes"}
    assert hub.requests["POST commit"] == 1
    assert not hub.unknown

    # Published once more, nothing changes; another form takes the old one's files away and leaves those of others.
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"old", path_in_repo="model-00001-of-00002.safetensors", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"old", path_in_repo="ancient_tall.py", repo_id=repo_id)
    again = publishing.publish(folder, repo_id, card=card, verify=False)
    expected = {file.path_in_repo for file in published.files} | {".gitattributes", "notes.txt"}
    assert set(api.list_repo_files(repo_id)) == expected
    assert publishing.publish(folder, repo_id, card=card, verify=False).commit == again.commit


def test_other_weights_on_the_hub_are_noticed(folder, unverified, composed, tmp_path, api):
    repo_id, _ = unverified()
    other = shutil.copytree(folder, tmp_path / "other")
    model = TALLForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.encoder.gate.add_(0.1)
    model.save_pretrained(other)
    weights = {"path_or_fileobj": other / "model.safetensors", "path_in_repo": "model.safetensors"}
    commit = api.upload_file(repo_id=repo_id, **weights).oid
    with pytest.raises(VerificationError, match=r"not the local model: logits differs in \d+ of \d+ numbers, by \d"):
        publishing.verify(repo_id, commit, predict_locally(folder))


def test_the_command_ends_in_an_error_where_something_differs(folder, hub, monkeypatch):
    command = ["publish", str(folder), f"{hub.organization}/command", "--language", "he", "--license", "mit"]
    ours = predict_locally(folder)
    monkeypatch.setattr(verification, "predict_on_hub", lambda *args, **kwargs: ours)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "and checked there" in result.output

    tensors = {**ours.tensors, "logits": torch.nextafter(ours.tensors["logits"], torch.tensor(torch.inf))}
    theirs = type(ours)(ours.texts, tensors)
    monkeypatch.setattr(verification, "predict_on_hub", lambda *args, **kwargs: theirs)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "it is not the local model: logits differs in" in result.output


def test_the_light_form(hub, api, part_folders, tmp_path):
    specs = {}
    for role, source in part_folders().items():
        specs[role] = f"{hub.organization}/{role.replace('_', '-')}"
        api.create_repo(specs[role])
        api.upload_folder(repo_id=specs[role], folder_path=source)
    model, processor = compose(**specs, source_bridge="gated")
    parts.stir(model)
    folder = publishing.save(model, processor, tmp_path / "tall")
    repo_id = f"{hub.organization}/light"
    published = publishing.publish(folder, repo_id, trainable_only=True)

    loaded, _ = load_light(f"{repo_id}@{published.commit}")
    inputs = batch(random_rows(model, processor))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    with pytest.raises(FileNotFoundError, match="no frozen_parts.json"):
        load_light(specs["llm"])

    api.delete_repo(specs["llm"])
    with pytest.raises(ValueError, match=f"'llm', {specs['llm']} at revision .* no longer on the Hub"):
        publishing.publish(folder, repo_id, trainable_only=True)
    shutil.rmtree(hub.folder / "home" / "hub" / f"models--{specs['llm'].replace('/', '--')}")
    with pytest.raises(FileNotFoundError, match=f"'llm' that .*{specs['llm']}@.*no longer on the Hub"):
        load_light(f"{repo_id}@{published.commit}")


def test_remote_code_is_updated_and_compared(hub, api, unverified, caplog):
    code = (CODE / "words_tall.py").read_text(encoding="utf-8")
    repo_id, old = unverified(words=code + "\n# of an older version\n", ancient="# no longer used\n")
    publishing.warn_if_code_differs(repo_id, TALL)
    assert "differs from the installed tall-hf in ancient_tall.py, words_tall.py. Here the installed" in caplog.text
    before = api.list_repo_files(repo_id)
    updated = publishing.update_code(repo_id)
    assert [file.path_in_repo for file in updated.files] == ["words_tall.py"]
    assert set(api.list_repo_files(repo_id)) == set(before) - {"ancient_tall.py"}
    assert [commit.commit_id for commit in api.list_repo_commits(repo_id)][:2] == [updated.commit, old]
    caplog.clear()
    publishing.warn_if_code_differs(repo_id, TALL)
    assert not caplog.text
    assert publishing.update_code(repo_id).commit == updated.commit


def test_the_old_configuration_and_handler_come_to_fit_the_new_classes(api, unverified):
    repo_id, _ = unverified()
    config = json.loads(Path(api.hf_hub_download(repo_id, "config.json")).read_text())
    del config["auto_map"]["AutoModelForSeq2SeqLM"]
    content = json.dumps(config).encode()
    api.upload_file(path_or_fileobj=content, path_in_repo="config.json", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"# of an older version", path_in_repo="handler.py", repo_id=repo_id)
    api.delete_file("requirements.txt", repo_id=repo_id)  # what its owner took away stays away
    updated = publishing.update_code(repo_id, verify=False)
    assert [file.path_in_repo for file in updated.files] == ["config.json", "handler.py"]
    assert Path(api.hf_hub_download(repo_id, "handler.py")).read_bytes() == (CARDS / "handler.py").read_bytes()
    config = json.loads(Path(api.hf_hub_download(repo_id, "config.json")).read_text())
    assert config["auto_map"]["AutoModelForSeq2SeqLM"] == "modeling_tall.TALLForCausalLM"


def test_an_update_is_not_made_or_names_the_way_back(folder, unverified, monkeypatch):
    code = (CODE / "words_tall.py").read_text(encoding="utf-8")
    repo_id, old = unverified(words=code.replace("import torch\n", "import torch\nimport tall_hf\n", 1))
    with pytest.raises(
        VerificationError, match="nothing was changed: .*could not be loaded.*tall_hf.*--no-verify"
    ) as error:
        publishing.update_code(repo_id)
    assert "Traceback" in error.value.__cause__.__notes__[0]
    assert HfApi().model_info(repo_id).sha == old

    ours = predict_locally(folder)
    theirs = type(ours)(ours.texts, {**ours.tensors, "logits": ours.tensors["logits"] + 1})
    monkeypatch.setattr(push, "predict_on_hub", lambda *args, **kwargs: ours)
    monkeypatch.setattr(verification, "predict_on_hub", lambda *args, **kwargs: theirs)
    with pytest.raises(VerificationError, match=f"logits differs.* by 1 at most.* before is at the revision {old}"):
        publishing.update_code(repo_id)


def test_code_of_somebody_else_is_not_run(hub, unverified, monkeypatch):
    repo_id, _ = unverified(words="# of an older version\n")
    monkeypatch.setattr(push, "predict_on_hub", lambda *args, **kwargs: pytest.fail("It was run."))
    for token in (hub.add_user("ruth"), hub.add_user(hub.user, (hub.organization,), role="read")):
        with pytest.raises(PermissionError, match=f"access to {repo_id}"):
            publishing.update_code(repo_id, token=token)


def test_code_that_tokenizers_name_elsewhere_is_not_run_but_taken_out(api, unverified, monkeypatch):
    repo_id, _ = unverified()
    for name in ("tokenizer_config.json", "llm_tokenizer/tokenizer_config.json"):
        config = json.loads(Path(api.hf_hub_download(repo_id, name)).read_text(encoding="utf-8"))
        config["auto_map"]["AutoTokenizer"] = [None, "evil/repository--evil.Evil"]
        api.upload_file(path_or_fileobj=json.dumps(config).encode(), path_in_repo=name, repo_id=repo_id)
    head = api.model_info(repo_id).sha
    monkeypatch.setattr(push, "predict_on_hub", lambda *args, **kwargs: pytest.fail("It was run."))
    with pytest.raises(ValueError, match="tokenizer_config.json of .* names the code 'evil/repository--evil.Evil'"):
        publishing.update_code(repo_id)
    assert api.model_info(repo_id).sha == head
    updated = publishing.update_code(repo_id, verify=False)
    changed = {file.path_in_repo: json.loads(file.source) for file in updated.files}
    assert set(changed) == {"tokenizer_config.json", "llm_tokenizer/tokenizer_config.json"}
    assert all(config["auto_map"] == {"AutoProcessor": "processing_tall.TALLProcessor"} for config in changed.values())
    assert publishing.update_code(repo_id).files == []


def test_a_repository_of_another_model_is_not_updated(api, hub):
    repo_id = f"{hub.organization}/other"
    api.create_repo(repo_id)
    with pytest.raises(ValueError, match="no config.json"):
        publishing.update_code(repo_id)
    for name, content in (("config.json", b'{"model_type": "bert"}'), ("processor_config.json", b"{}")):
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo_id)
    with pytest.raises(ValueError, match="type 'bert', no model of tall-hf"):
        publishing.update_code(repo_id)


def test_visibility_is_not_changed_unasked(folder, hub, api):
    repo_id = f"{hub.organization}/public"
    api.create_repo(repo_id, private=False)
    head = api.model_info(repo_id).sha
    with pytest.raises(ValueError, match="exists and is public, not private"):
        publishing.publish(folder, repo_id, private=True, verify=False)
    assert api.model_info(repo_id).sha == head


def test_rights_are_explained_and_no_token_is_told(folder, hub, api, caplog, monkeypatch):
    api.create_repo(f"{hub.organization}/mine", private=True)
    stranger, reader = hub.add_user("stranger"), hub.add_user(hub.user, (hub.organization,), role="read")
    cases = [
        (stranger, f"{hub.organization}/mine", "refuses stranger access to .*/mine .*somebody else's"),
        (stranger, f"{hub.organization}/new", "refuses stranger access"),
        (reader, f"{hub.organization}/mine", f"refuses {hub.user} access to .* may only read"),
        ("hf_wrong", f"{hub.user}/new", "does not accept the token: it is wrong"),
        ("hf_bro\nken", f"{hub.user}/new", "characters that no token has"),
        (False, f"{hub.user}/new", "no token to write.*hf auth login"),
    ]
    for token, repo_id, message in cases:
        with pytest.raises(PermissionError, match=message) as raised:
            publishing.publish(folder, repo_id, token=token, verify=False)
        error = raised.value
        while error is not None:
            assert not token or token not in str(error)
            error = error.__cause__ or error.__context__
    with pytest.raises(PermissionError, match="refuses stranger access"):
        publishing.update_code(f"{hub.organization}/mine", token=stranger)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="no token"):
        publishing.update_code(f"{hub.organization}/mine")
    assert hub.repository(f"{hub.organization}/mine").files() == [".gitattributes"]
    assert not {name for _, name in hub.repositories if name.endswith("/new")}
    assert "hf_" not in caplog.text.replace("tall_hf_", "")
