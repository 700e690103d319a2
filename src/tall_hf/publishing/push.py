"""Put a trained model on the Hub in one commit, or bring the remote code of a published one up to date, and verify it."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils.sha import git_hash
from rich.console import Console
from transformers.utils import logging

from tall_hf.files import read_json
from tall_hf.hub_token import check_token, token_to_send
from tall_hf.kinds import ModelKind, kind_of
from tall_hf.saving import model_folder

from .planning import PublishedFile, accompanying_files, is_published, plan, read_config
from .remote_code import (
    code_in_repository,
    code_named,
    differing,
    installed_code,
    with_installed_auto_map,
    with_installed_processor,
)
from .verification import VerificationError, predict_locally, predict_on_hub
from .verification import verify as verify_published


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Published:
    """What was put on the Hub: the repository's address, the commit, and the files of that commit."""

    url: str
    commit: str
    files: list[PublishedFile]


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    trainable_only: bool = False,
    card: ModelCard | str | None = None,
    message: str | None = None,
    token: str | bool | None = None,
    verify: bool = True,
    console: Console | None = None,
) -> Published:
    """Put a trained model on the Hub in one commit, then load it back in a fresh process and compare.

    The commit holds what `plan` lists, and takes away what an earlier version had in its place; other files of the repository
    stay. Until it is complete, the repository is what it was: files that went up before an interruption are not seen, and
    are not sent again.

    Args:
        folder: what `tall train` wrote, its `model/`, or any saved model.
        repo_id: `name/of-the-model`; the repository is made if there is none.
        private: who sees it. None makes a new repository as the account's settings say, and leaves an old one as it is.
        trainable_only: the adapters alone, for `tall_hf.load_light`.
        card: the README.md; without it that of the repository, if any, stays.
        message: the commit's.
        token: instead of the one logged in with, or of `HF_TOKEN`.
        verify: load it back and compare.
        console: where to say what is being done.

    Raises:
        FileNotFoundError, ValueError: what `plan` refuses; `private` is not what the repository is; a frozen part of a light
            model is no longer on the Hub.
        PermissionError: there is no token, it is not accepted, or may not write there.
        ConnectionError: the Hub cannot be reached.
        VerificationError: it was published, and is not the local model.
    """
    api = _api(token)
    say = console.print if console else logger.info
    folder = model_folder(folder)
    files = plan(folder, trainable_only=trainable_only, card=card)
    with _explained(repo_id):
        user = _who(api)
        if trainable_only:
            _check_parts(api, read_config(folder), repo_id)
    # Before anything goes up: a model that does not run here is not published.
    expected = predict_locally(folder) if verify else None
    with _explained(repo_id, user):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        info = api.model_info(repo_id)
        if private is not None and info.private != private:
            is_now, wanted = ("private", "public") if info.private else ("public", "private")
            raise ValueError(
                f"{repo_id} exists and is {is_now}, not {wanted}. Change that in its settings on the Hub first, or name "
                "another repository."
            )
        there = _files_there(api, repo_id, info)
        kind = kind_of(read_config(folder))
        _warn_of_other_code(repo_id, there, kind)
        new = {file.path_in_repo for file in files}
        stale = [file.path for file in there if is_published(file.path) and file.path not in new]
        say(f"Uploading {len(files)} files, {sum(file.size for file in files) / 1e6:,.1f} MB, to {repo_id}.")
        commit = _commit(api, repo_id, info, files, stale, message or f"Publish a {kind.name}")
    published = Published(f"{api.endpoint}/{repo_id}", commit.oid, files)
    if expected is not None:
        say(f"Loading {repo_id} at {commit.oid} in a fresh process, to compare it with the local model.")
        verify_published(repo_id, commit.oid, expected, api.token, trainable_only=trainable_only)
    return published


def update_code(repo_id: str, *, token: str | bool | None = None, verify: bool = True) -> Published:
    """Replace a published model's remote code by the installed package's, in one commit, and verify the predictions.

    Weights, tokenizers and card stay; the handler and the example that were published beside the code follow it. Where
    `tall_hf` is imported its own classes load the model, whatever code the repository has; the repository's code is what
    everybody else runs.

    Args:
        repo_id: the repository.
        token: instead of the one logged in with, or of `HF_TOKEN`.
        verify: run the repository's old code, then its new code, each in a fresh process, and compare the logits. For a light
            model, whose remote code loads nothing, there is nothing to compare.

    Returns:
        The commit and the files that changed in it; the newest commit and none if the code was up to date.

    Raises:
        ValueError: it is no model of this package.
        PermissionError, ConnectionError: as for `publish`.
        VerificationError: the old code cannot be run (nothing was changed then), or the new code predicts something else.
    """
    api = _api(token)
    with _explained(repo_id):
        user = _who(api)
    with _explained(repo_id, user), tempfile.TemporaryDirectory(prefix="tall-update-") as home:
        # Before any of its code runs: that of somebody else's repository must not, least of all beside this token.
        api.auth_check(repo_id, write=True)
        info = api.model_info(repo_id)
        there = _files_there(api, repo_id, info)
        files, kind, trainable_only = _updated_files(api, repo_id, info, {file.path for file in there}, is_run=verify)
        ours = installed_code(kind)
        hashes = {file.path: file.blob_id for file in there}
        for name, path in accompanying_files(kind).items():
            if name in hashes and hashes[name] != git_hash(path.read_bytes()):
                files.append(PublishedFile(name, path.stat().st_size, path))
        changed = differing(code_in_repository(there), kind)
        files += [PublishedFile(name, ours[name].stat().st_size, ours[name]) for name in changed if name in ours]
        stale = [name for name in changed if name not in ours]
        if not files and not stale:
            logger.warning(f"The remote code of {repo_id} is that of the installed tall-hf already.")
            return Published(f"{api.endpoint}/{repo_id}", info.sha, [])
        _warn_of_other_code(repo_id, there, kind)
        before = None
        if verify and not trainable_only:
            try:
                before = predict_on_hub(repo_id, info.sha, token=api.token, home=home)
            except VerificationError as error:
                raise VerificationError(
                    f"The published code cannot be compared with the new one, so nothing was changed: {error} To replace it "
                    "all the same, leave the verification out (`--no-verify`)."
                ) from error
        commit = _commit(api, repo_id, info, files, stale, "Update the remote code")
        if before is not None:
            try:
                verify_published(repo_id, commit.oid, before, api.token, home=home)
            except VerificationError as error:
                raise VerificationError(f"{error} The code before is at the revision {info.sha}.") from error
    return Published(f"{api.endpoint}/{repo_id}", commit.oid, files)


def signed_in_user(token: str | bool | None = None) -> str:
    """The name of the user that a token, by default the one logged in with, belongs to.

    Raises:
        PermissionError: there is no token, or it is not accepted.
        ConnectionError: the Hub cannot be reached.
    """
    api = _api(token)
    with _explained("the Hub"):
        return _who(api)


def _updated_files(
    api: HfApi, repo_id: str, info: ModelInfo, there: set[str], is_run: bool
) -> tuple[list[PublishedFile], ModelKind, bool]:
    """The configurations that name anything but the installed code's classes, the model's kind, and whether it is light.

    ValueError if `is_run` and a configuration names code that is not of the repository itself.
    """
    configs = {}
    found = sorted(
        name for name in there if PurePosixPath(name).name == "tokenizer_config.json" and is_published(name)
    )
    for name in ("config.json", "processor_config.json", *found):
        if name not in there:
            raise ValueError(f"{repo_id} has no {name}, so it is no model that was published by tall-hf.")
        path = hf_hub_download(repo_id, name, revision=info.sha, token=api.token, endpoint=api.endpoint)
        configs[name] = read_json(Path(path))
    config = configs["config.json"]
    kind = kind_of(config)
    if kind is None:
        raise ValueError(f"{repo_id} is of type {config.get('model_type')!r}, no model of tall-hf.")
    for name, one in configs.items():
        if is_run and (foreign := [code for code in code_named(one) if "--" in str(code)]):
            raise ValueError(
                f"{name} of {repo_id} names the code {foreign[0]!r} of another repository, which is not run here, so the "
                "published model cannot be compared with the updated one. To take it out all the same, leave the verification "
                "out (`--no-verify`)."
            )
    updated = {name: with_installed_processor(one, kind) for name, one in configs.items() if name != "config.json"}
    updated["config.json"] = with_installed_auto_map(config)
    files = []
    for name, new in updated.items():
        if new != configs[name]:
            content = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
            files.append(PublishedFile(name, len(content), content))
    return files, kind, bool(config.get("trainable_only"))


def _api(token: str | bool | None) -> HfApi:
    """The Hub's client with a token, which the messages of errors must never quote.

    Raises:
        PermissionError: there is none, or it has characters that would break the request that quotes it.
    """
    token = (token_to_send(token) or "").strip()
    if not token:
        raise PermissionError(
            "There is no token to write to the Hub with. Log in by `hf auth login`, or set HF_TOKEN to a token with the right "
            "to write."
        )
    check_token(token)
    return HfApi(token=token)


def _who(api: HfApi) -> str:
    """The name of the token's user."""
    try:
        return api.whoami()["name"]
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise PermissionError(
                f"{api.endpoint} does not accept the token: it is wrong, expired or revoked. Log in again by `hf auth login`, "
                "or set HF_TOKEN."
            ) from error
        raise


@contextlib.contextmanager
def _explained(repo_id: str, user: str | None = None):
    """Within, what the Hub refuses becomes an error that says what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise PermissionError(
                f"The Hub refuses {user or 'this token'} access to {repo_id} (status {status}): the name is somebody else's or "
                "is not there, or the token may only read. Name a repository of your own or of an organisation you write "
                "for, and use a token with the right to write."
            ) from error
        if status in (409, 412):
            raise ConnectionError(
                f"{repo_id} was changed by somebody else at the same time (status {status}); run the same command again."
            ) from error
        raise
    except HTTPError as error:  # of the HTTP library, whose name depends on the version of huggingface_hub
        raise _interrupted(repo_id, error) from error
    except RuntimeError as error:
        # What huggingface_hub makes of a large file that could not be sent.
        if isinstance(error.__cause__, HTTPError):
            raise _interrupted(repo_id, error.__cause__) from error
        raise


def _interrupted(repo_id: str, error: Exception) -> ConnectionError:
    # The error's own text may quote an address that is signed.
    status = f", status {error.response.status_code}" if isinstance(error, HfHubHTTPError) else ""
    return ConnectionError(
        f"The Hub cannot be reached or broke off ({type(error).__name__}{status}); {repo_id} is unchanged. Run the same "
        "command again: what has gone up is not sent twice."
    )


def _check_parts(api: HfApi, config: dict, repo_id: str):
    """Refuse to publish adapters without frozen parts that are still there."""
    for role in kind_of(config).roles:
        name, revision = config["components"][role]["name_or_path"], config["components"][role]["revision"]
        try:
            api.model_info(name, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise ValueError(
                f"The part {role!r}, {name} at revision {revision}, is no longer on the Hub, or this token may not see it, so "
                f"{repo_id} could not be loaded without it. Publish the whole model, without `--trainable-only`."
            ) from error


def _files_there(api: HfApi, repo_id: str, info: ModelInfo) -> list[RepoFile]:
    tree = api.list_repo_tree(repo_id, recursive=True, revision=info.sha)
    return [file for file in tree if isinstance(file, RepoFile)]


def _warn_of_other_code(repo_id: str, there: list[RepoFile], kind: ModelKind):
    code = code_in_repository(there)
    if code and (names := differing(code, kind)):
        logger.warning(
            f"The remote code of {repo_id} differs from the installed tall-hf in {', '.join(names)}; the installed one "
            "replaces it."
        )


def _commit(
    api: HfApi, repo_id: str, info: ModelInfo, files: Iterable[PublishedFile], stale: Iterable[str], message: str
) -> CommitInfo:
    operations = [CommitOperationAdd(file.path_in_repo, file.source) for file in files]
    operations += [CommitOperationDelete(path, is_folder=False) for path in stale]
    # Based on the commit that was looked at: what somebody else commits meanwhile is not lost.
    return api.create_commit(repo_id, operations, commit_message=message, parent_commit=info.sha)
