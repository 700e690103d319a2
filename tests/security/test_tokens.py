"""A token of the Hub is in no error, log, card, configuration or file, whatever request fails."""

import json
import logging
import shutil

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from tall_hf import compose, compose_layer_fusion, load_light, publishing
from tall_hf.cards import model_card
from tall_hf.cards.licenses import look_up_licenses
from tall_hf.cli import app
from tall_hf.hub_token import without_tokens
from tall_hf.kinds import TALL, check_kind
from tall_hf.language_pairs import find_translators


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


@pytest.fixture
def log(caplog, monkeypatch):
    """All that is logged, by the libraries that talk to the Hub too."""
    for name in ("", "huggingface_hub", "transformers"):
        caplog.set_level(logging.DEBUG, logger=name)
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    return caplog


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_request_that_fails_does_not_tell_the_token(hub, folder, log, capfd, status):
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
    assert hub.token not in log.text and any(record.name.startswith("huggingface_hub") for record in log.records)
    assert hub.token not in "".join(capfd.readouterr())


def test_the_command_does_not_tell_the_token(hub, folder, log):
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
    assert hub.token not in log.text


def test_the_token_is_in_nothing_that_is_saved_or_published(hub, part_folders, tmp_path):
    model, processor = compose(**part_folders(), token=hub.token)
    folder = publishing.save(model, processor, tmp_path / "tall")
    repo_id = f"{hub.organization}/clean"
    card = model_card(folder, repo_id=repo_id, language="he", license="mit")
    publishing.publish(folder, repo_id, card=card, token=hub.token, verify=False)
    token, repository = hub.token.encode(), hub.repository(repo_id)
    for path in folder.rglob("*"):
        assert path.is_dir() or token not in path.read_bytes(), path
    for name in repository.files():
        assert token not in repository.read(name), name
    for commit in repository.history():
        assert hub.token not in commit.title + commit.description
    assert HfApi().model_info(repo_id)


PASTED = "hf_" + "canaryCANARY" * 2 + "0123456789"


@pytest.mark.parametrize(
    "name", [f"https://user:{PASTED}@huggingface.co/a/b", f"https://huggingface.co/{PASTED}/b", PASTED]
)
def test_a_token_that_was_given_for_a_name_is_not_quoted(hub, folder, tmp_path, name):
    with pytest.raises(Exception) as refused:
        compose(f"{name}/c/d", "tall-tests/b", "tall-tests/c")
    assert "canary" not in str(refused.value)
    parts = ["--llm", "tall-tests/b", "--hr-lr", "tall-tests/c", "--output", str(tmp_path / "out")]
    for command in (
        ["compose", "--lr-hr", name, *parts],
        ["publish", str(folder), name, "--license", "mit"],
        ["info", name],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code and "canary" not in done.output, (command, done.output)


def test_what_is_no_token_is_told():
    message = "hf_experiments/run-1 of https://huggingface.co/hf_user/name@main is no folder (a@b)"
    assert without_tokens(message) == message


BROKEN = ("hf_canary\n", "hf_canary\r\nX: y", "hf_canary\u05d0", "hf_canary\0", "hf canary")


@pytest.fixture
def asking(folder, tmp_path):
    """What asks the Hub for something with a token, by its name."""
    parts = shutil.copytree(folder, tmp_path / "tall")
    config = json.loads((parts / "config.json").read_text(encoding="utf-8"))
    config["components"]["llm"] = {"name_or_path": "tall-tests/llm", "revision": "0" * 40}
    (parts / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return {
        "compose": lambda token: compose("tall-tests/a", "tall-tests/b", "tall-tests/c", token=token),
        "compose_layer_fusion": lambda token: compose_layer_fusion("tall-tests/a", "tall-tests/b", token=token),
        "load_light": lambda token: load_light("tall-tests/light", token=token),
        "find_translators": lambda token: find_translators("he", ask_hub=True, token=token),
        "look_up_licenses": lambda token: look_up_licenses(parts, token=token),
        "check_kind": lambda token: check_kind("tall-tests/a", token=token),
        "warn_if_code_differs": lambda token: publishing.warn_if_code_differs("tall-tests/a", TALL, token=token),
    }


@pytest.mark.parametrize("given", ["option", "environment"])
@pytest.mark.parametrize(
    "name",
    [
        "compose",
        "compose_layer_fusion",
        "load_light",
        "find_translators",
        "look_up_licenses",
        "check_kind",
        "warn_if_code_differs",
    ],
)
def test_a_token_that_breaks_a_request_is_refused_unquoted(hub, asking, monkeypatch, caplog, name, given):
    caplog.set_level(logging.DEBUG)
    for token in BROKEN:
        # Line breaks and spaces around the one of the environment are taken off by huggingface_hub.
        if given == "environment" and (token.strip() != token or "\0" in token or "\r" in token):
            continue
        if given == "environment":
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(PermissionError, match="token has characters that no token has") as refused:
            asking[name](token if given == "option" else None)
        assert "canary" not in said(refused.value)
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        ["compose", "--lr-hr", "tall-tests/a", "--llm", "tall-tests/b", "--hr-lr", "tall-tests/c", "--output", "out"],
        ["languages", "he", "--hub"],
    ],
)
def test_a_command_does_not_quote_a_token_that_breaks_a_request(hub, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for token in ("hf_canary\n", "hf_canary\u05d0"):
        for debug in ([], ["--debug"]):
            done = CliRunner().invoke(app, [*debug, *command], env={"HF_TOKEN": token})
            assert done.exit_code == 1
            assert "canary" not in done.output + said(done.exception)
