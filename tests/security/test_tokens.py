"""A token of the Hub is in no error, log, card, configuration or file, whatever request fails."""

import logging

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from tall_hf import compose, publishing
from tall_hf.cli import app


CARD = "---\nlicense: mit\n---\n# A model\n"
# What publishing asks for, and what it may be answered. 5xx and 429 are tried again by the client, for minutes.
REQUESTS = (
    "whoami",
    "create",
    "info",
    "tree",
    "preupload",
    "lfs-batch",
    "upload",
    "lfs-verify",
    "commit",
    "validate-yaml",
)
METHODS = {"whoami": "GET", "info": "GET", "tree": "GET", "upload": "PUT"}


@pytest.fixture(scope="module")
def folder(composed, tmp_path_factory):
    """A saved TALL; not to be changed."""
    return publishing.save(*composed("gated"), tmp_path_factory.mktemp("saved") / "tall")


def said(error: BaseException | None) -> str:
    """All that an error and those behind it would show, notes included."""
    shown = []
    while error is not None:
        shown += [str(error), repr(error), *getattr(error, "__notes__", [])]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_request_that_fails_does_not_tell_the_token(hub, folder, caplog, capfd, status):
    caplog.set_level(logging.DEBUG)
    for name in REQUESTS:
        request, error = f"{METHODS.get(name, 'POST')} {name}", None
        hub.requests.clear()
        for stored in hub.storage.folder.iterdir():  # what is there already is not sent again
            stored.unlink()
        with hub.failing(request, status):
            try:
                publishing.publish(folder, f"{hub.organization}/canary-{status}-{name}", card=CARD, verify=False)
            except Exception as raised:
                error = raised
        assert hub.requests[request] or name == "validate-yaml", request
        assert error is not None or name in ("validate-yaml", "create", "lfs-batch", "upload", "lfs-verify"), request
        assert hub.token not in said(error), request
    assert hub.token not in caplog.text
    assert hub.token not in "".join(capfd.readouterr())


def test_the_command_does_not_tell_the_token(hub, folder, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("GET whoami", "POST commit"):
        with hub.failing(name):
            for debug in ([], ["--debug"]):
                done = CliRunner().invoke(
                    app,
                    [
                        *debug,
                        "publish",
                        str(folder),
                        f"{hub.organization}/command",
                        "--language",
                        "he",
                        "--license",
                        "mit",
                    ],
                )
                assert done.exit_code == 1
                assert hub.token not in done.output + said(done.exception)
    assert hub.token not in caplog.text


def test_the_token_is_in_nothing_that_is_saved_or_published(hub, part_folders, tmp_path):
    model, processor = compose(**part_folders(), token=hub.token)
    folder = publishing.save(model, processor, tmp_path / "tall")
    repo_id = f"{hub.organization}/clean"
    publishing.publish(folder, repo_id, card=CARD, token=hub.token, verify=False)
    token, repository = hub.token.encode(), hub.repository(repo_id)
    for path in folder.rglob("*"):
        assert path.is_dir() or token not in path.read_bytes(), path
    for name in repository.files():
        assert token not in repository.read(name), name
    for commit in repository.history():
        assert hub.token not in commit.title + commit.description
    assert HfApi().model_info(repo_id)
