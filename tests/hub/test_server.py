"""The test Hub, as the real huggingface_hub client finds it."""

import hashlib
import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


CARD = "---\nlicense: apache-2.0\npipeline_tag: text-generation\nlibrary_name: transformers\n---\n# A model\n"
WEIGHTS = os.urandom(50_000)


@pytest.fixture
def api(hub):
    hub.requests.clear()
    return HfApi(token=hub.token)


@pytest.fixture
def repo_id(hub, api, request):
    """A repository with a card, a file in a folder, and weights."""
    name = f"{hub.organization}/{request.node.name.replace('[', '-').replace(']', '')}"
    api.create_repo(name)
    files = {"README.md": CARD.encode(), "sub/config.json": b"{}", "model.safetensors": WEIGHTS}
    api.create_commit(name, [CommitOperationAdd(*file) for file in files.items()], commit_message="Add a model")
    return name


def ask(method, url, body=None, **headers):
    """A request that follows no redirect."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request(method, f"{parts.path}?{parts.query}", body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_a_push_is_one_commit_and_large_files_go_to_the_other_origin(hub, api, repo_id):
    del hub.requests["GET agent-harnesses"]  # once in a process
    assert hub.requests == {
        "POST create": 1,
        "POST validate-yaml": 1,
        "POST preupload": 1,
        "POST lfs-batch": 1,
        "PUT upload": 1,
        "POST lfs-verify": 1,
        "POST commit": 1,
    }
    repository = hub.repository(repo_id)
    assert [commit.title for commit in repository.history()] == ["Add a model", "initial commit"]
    assert repository.files() == [".gitattributes", "README.md", "model.safetensors", "sub/config.json"]
    assert repository.read("model.safetensors") == WEIGHTS
    assert repository.blob("model.safetensors").lfs
    assert not repository.blob("README.md").lfs


def test_info_tree_paths_and_history(hub, api, repo_id):
    repository, head = hub.repository(repo_id), hub.repository(repo_id).resolve()
    info = api.model_info(repo_id, files_metadata=True)
    assert (info.id, info.sha, info.private) == (repo_id, head.oid, False)
    assert (info.pipeline_tag, info.library_name, info.card_data.license) == (
        "text-generation",
        "transformers",
        "apache-2.0",
    )
    assert info.last_modified == head.date
    weights = next(one for one in info.siblings if one.rfilename == "model.safetensors")
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert (weights.size, weights.blob_id) == (50_000, repository.blob("model.safetensors").oid)
    assert [one.path for one in api.list_repo_tree(repo_id)] == [
        ".gitattributes",
        "README.md",
        "model.safetensors",
        "sub",
    ]
    assert [one.path for one in api.list_repo_tree(repo_id, recursive=True)][-2:] == ["sub", "sub/config.json"]
    assert [one.path for one in api.list_repo_tree(repo_id, "sub")] == ["sub/config.json"]
    assert api.list_repo_files(repo_id) == repository.files()
    [found] = api.get_paths_info(repo_id, ["sub/config.json", "missing"])
    assert (found.path, found.size) == ("sub/config.json", 2)
    assert [one.commit_id for one in api.list_repo_commits(repo_id)] == [one.oid for one in repository.history()]
    assert api.file_exists(repo_id, "README.md")
    assert not api.file_exists(repo_id, "missing")
    assert hub.unknown == []


def test_download_verifies_and_is_cached(hub, api, repo_id, tmp_path):
    hub.requests.clear()
    folder = snapshot_download(repo_id, cache_dir=tmp_path)
    assert (Path(folder) / "README.md").read_text() == CARD
    assert (Path(folder) / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.requests["GET download"] == 1
    before = hub.requests.total()
    # Weights are asked after and not fetched again: their ETag is known.
    hf_hub_download(repo_id, "model.safetensors", cache_dir=tmp_path)
    assert hub.requests["GET download"] == 1
    assert hub.requests.total() <= before + 1


def test_redirect_and_ranges(hub, repo_id):
    head = hub.repository(repo_id).resolve().oid
    url = f"{hub.endpoint}/{repo_id}/resolve/main/model.safetensors"
    for method in ("HEAD", "GET"):
        response, _ = ask(method, url)
        assert response.status == 302
        assert response.headers["X-Repo-Commit"] == head
        assert response.headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
        assert response.headers["X-Linked-Size"] == "50000"
    location = response.headers["Location"]
    assert urlsplit(location).netloc != urlsplit(hub.endpoint).netloc
    response, content = ask("GET", location, Range="bytes=100-199")
    assert (response.status, content) == (206, WEIGHTS[100:200])
    assert response.headers["Content-Range"] == "bytes 100-199/50000"
    # A signature is good for one method, and no token belongs there.
    assert ask("PUT", location, b"other")[0].status == 403
    assert ask("GET", location.replace("signature=", "signature=0"))[0].status == 403
    assert ask("GET", location, Authorization=f"Bearer {hub.token}")[0].status == 400
    # Regular files come directly.
    response, content = ask("HEAD", f"{hub.endpoint}/{repo_id}/resolve/main/README.md")
    assert (response.status, content, response.headers["Content-Length"]) == (200, b"", str(len(CARD)))
    response, content = ask("GET", f"{hub.endpoint}/{repo_id}/resolve/main/README.md", Range="bytes=4-10")
    assert (response.status, content) == (206, CARD[4:11].encode())


def test_an_older_commit_a_tag_and_a_branch_stay_as_they_were(hub, api, repo_id, tmp_path):
    old = hub.repository(repo_id).resolve().oid
    api.create_tag(repo_id, tag="v1")
    api.create_branch(repo_id, branch="trial")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repo_id, tag="v1")
    made = api.create_commit(
        repo_id,
        [
            CommitOperationAdd("sub/config.json", b'{"new": true}'),
            CommitOperationDelete("README.md"),
        ],
        commit_message="Change it",
        parent_commit=old,
    )
    assert hub.repository(repo_id).resolve().oid == made.oid != old
    for revision in (old, "v1", "trial"):
        path = hf_hub_download(repo_id, "sub/config.json", revision=revision, cache_dir=tmp_path)
        assert Path(path).read_text() == "{}"
        assert "README.md" in api.list_repo_files(repo_id, revision=revision)
    assert Path(hf_hub_download(repo_id, "sub/config.json", cache_dir=tmp_path)).read_text() == '{"new": true}'
    assert [ref.name for ref in api.list_repo_refs(repo_id).branches] == ["main", "trial"]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(
            repo_id, [CommitOperationAdd("late.txt", b"late")], commit_message="Too late", parent_commit=old
        )
    assert "late.txt" not in hub.repository(repo_id).files()


def test_an_unchanged_file_is_neither_sent_nor_committed(hub, api, repo_id):
    hub.requests.clear()
    files = {"model.safetensors": WEIGHTS, "sub/config.json": b"{}"}
    api.create_commit(repo_id, [CommitOperationAdd(*file) for file in files.items()], commit_message="Again")
    assert hub.requests["PUT upload"] == hub.requests["POST commit"] == 0
    assert len(hub.repository(repo_id).history()) == 2


def test_folders_are_deleted_and_repositories_too(hub, api, repo_id):
    api.delete_folder("sub", repo_id)
    assert hub.repository(repo_id).files() == [".gitattributes", "README.md", "model.safetensors"]
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("sub/config.json", repo_id)
    api.delete_repo(repo_id)
    assert not api.repo_exists(repo_id)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo_id)


def test_what_is_missing_is_said_by_code(hub, api, repo_id, tmp_path):
    for revision, filename, error in (
        ("main", "missing", RemoteEntryNotFoundError),
        ("0" * 40, "README.md", RevisionNotFoundError),
    ):
        with pytest.raises(error):
            hf_hub_download(repo_id, filename, revision=revision, cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(f"{hub.organization}/missing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo_id, revision="missing")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo_id, "missing"))


def test_a_private_repository_is_there_only_for_its_owners(hub, api, repo_id):
    api.update_repo_settings(repo_id, private=True)
    other = hub.add_user("ruth")
    member = hub.add_user("yossi", (hub.organization,), role="read")
    assert api.model_info(repo_id).private
    assert HfApi(token=member).model_info(repo_id).private
    for token, status in ((False, 401), (other, 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api.model_info(repo_id, token=token)
        assert caught.value.response.status_code == status
        assert not api.file_exists(repo_id, "README.md", token=token)
    assert hub.repository(repo_id).private
    api.create_repo(f"{hub.user}/private", private=True)
    assert hub.repository(f"{hub.user}/private").private


def test_rights(hub, api, repo_id):
    assert api.whoami()["name"] == hub.user
    assert [one["name"] for one in api.whoami()["orgs"]] == [hub.organization]
    reader = hub.add_user(hub.user, (hub.organization,), role="read")
    stranger = hub.add_user("ruth")
    for token in (reader, stranger):
        with pytest.raises(HfHubHTTPError, match="403"):
            api.create_repo(f"{hub.organization}/new", token=token)
        with pytest.raises(HfHubHTTPError, match="403"):
            api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo_id, token=token)
        with pytest.raises(HfHubHTTPError, match="403"):
            api.auth_check(repo_id, write=True, token=token)
        # The client takes a name that exists for created, whoever's it is; only the upload is refused.
        assert api.create_repo(repo_id, exist_ok=True, token=token).repo_id == repo_id
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo_id)
    assert api.create_repo(repo_id, exist_ok=True).repo_id == repo_id
    assert "x.txt" not in hub.repository(repo_id).files()


def test_a_bad_token_is_refused_everywhere(hub, api, repo_id, monkeypatch):
    for call in (
        lambda: api.whoami(token="hf_wrong"),
        lambda: api.model_info(repo_id, token="hf_wrong"),
        lambda: api.create_repo(f"{hub.organization}/new", token="hf_wrong"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == 401
        assert "hf_wrong" not in str(caught.value)
        assert not isinstance(caught.value, RepositoryNotFoundError)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LocalTokenNotFoundError):
        HfApi().whoami()


def test_a_damaged_upload_is_not_kept(hub, api, repo_id):
    sha256 = hashlib.sha256(b"whole").hexdigest()
    address = hub.storage.signed("PUT", sha256)
    assert ask("PUT", address, b"who")[0].status == 400
    assert not hub.storage.path(sha256).exists()
    batch = f"{hub.endpoint}/{repo_id}.git/info/lfs/verify"
    request = b'{"oid": "%s", "size": 5}' % sha256.encode()
    assert ask("POST", batch, request, Authorization=f"Bearer {hub.token}")[0].status == 400
    assert ask("PUT", address, b"whole")[0].status == 200
    assert ask("POST", batch, request, Authorization=f"Bearer {hub.token}")[0].status == 200


def test_requests_fail_on_demand(hub, api, repo_id):
    files = [CommitOperationAdd(f"{i}.safetensors", os.urandom(100)) for i in range(3)]
    with hub.failing("PUT upload", skip=1), pytest.raises(RuntimeError):
        api.create_commit(repo_id, files, commit_message="Interrupted", num_threads=1)
    assert len(hub.repository(repo_id).history()) == 2
    api.create_commit(repo_id, files, commit_message="Complete")
    assert len(hub.repository(repo_id).history()) == 3


def test_cards_are_checked(hub, api, repo_id):
    ModelCard(CARD).validate()
    for metadata, message in (
        ("language: {he: 1}", "language"),
        ("model-index:\n- results: []", "model-index"),
        ("- no mapping", "mapping"),
        ("a: [unclosed", "Invalid YAML"),
    ):
        readme = f"---\n{metadata}\n---\n".encode()
        with pytest.raises(ValueError, match=message):
            api.upload_file(path_or_fileobj=readme, path_in_repo="README.md", repo_id=repo_id)
    assert hub.repository(repo_id).read("README.md").decode() == CARD
    with pytest.warns(UserWarning, match="empty or missing"):
        api.upload_file(path_or_fileobj=b"# No metadata\n", path_in_repo="README.md", repo_id=repo_id)


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_other_kinds_have_addresses_of_their_own(hub, api, kind, tmp_path):
    name = f"{hub.user}/same-name"
    api.create_repo(name, exist_ok=True)
    api.create_repo(name, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(WEIGHTS)
    (tmp_path / "app.py").write_text("import gradio\n")
    api.upload_folder(repo_id=name, folder_path=tmp_path, repo_type=kind)
    assert hub.repository(name, kind).files() == [".gitattributes", "app.py", "data/train.parquet"]
    assert hub.repository(name).files() == [".gitattributes"]
    assert api.repo_info(name, repo_type=kind).sha == hub.repository(name, kind).resolve().oid
    got = hf_hub_download(name, "data/train.parquet", repo_type=kind, cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == WEIGHTS
