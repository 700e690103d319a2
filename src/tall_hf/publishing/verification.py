"""Load a published model in a fresh process without this package, and compare what it predicts with what it should."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import constants

from tall_hf.files import read_json
from tall_hf.hub_token import check_token, token_to_send
from tall_hf.imports import library_paths
from tall_hf.kinds import kind_of
from tall_hf.training.light import load_light

from . import fresh_process
from .fresh_process import REQUEST_NAME, Predictions, predict


# The child is isolated from the environment (-I), so it is told where this process finds its libraries. A module that is None
# cannot be imported: without this package, however it is installed, only the repository's remote code can load the model.
_START = """
import json, runpy, sys
path, hidden, script, folder = json.loads(sys.argv[1])
sys.path += [one for one in path if one not in sys.path]
sys.modules.update(dict.fromkeys(hidden))
sys.argv = [script, folder]
runpy.run_path(script, run_name="__main__")
"""
# What would lead the child to files and settings that others do not have.
_OF_THIS_MACHINE = (
    "HF_ASSETS_CACHE",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_MODULES_CACHE",
    "HF_TOKEN_PATH",
    "HF_XET_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TRANSFORMERS_OFFLINE",
)


class VerificationError(RuntimeError):
    """A published model cannot be loaded, or predicts something else than the local one."""


def verify(
    repo_id: str,
    revision: str,
    expected: Predictions,
    token: str | bool | None = None,
    *,
    trainable_only: bool = False,
    home: str | os.PathLike | None = None,
) -> None:
    """Load a model from the Hub in a fresh process, and compare its predictions bit for bit.

    The process cannot import this package: it runs the repository's remote code, of exactly this revision. A light model
    is loaded by `tall_hf.load_light` instead, which fetches the frozen parts too.

    Args:
        repo_id: the repository.
        revision: the commit to load.
        expected: what `predict_locally` or `predict_on_hub` gave, on this machine.
        token: for private repositories.
        trainable_only: the repository holds the adapters alone.
        home: the process's `HF_HOME`; an empty one in the temporary folder, where there must be room for the model, if not
            given.

    Raises:
        VerificationError: it could not be loaded, or inputs or logits differ; the message says which and by how much.
    """
    found = predict_on_hub(repo_id, revision, expected, token, trainable_only=trainable_only, home=home)
    if differences := _differences(expected, found):
        raise VerificationError(
            f"{repo_id} at {revision} is published, but loaded back from the Hub it is not the local model: "
            f"{'; '.join(differences)}."
        )


def predict_locally(folder: str | os.PathLike) -> Predictions:
    """What the model or the light checkpoint in a folder predicts, loaded by the installed package."""
    config = read_json(Path(folder, "config.json"))
    if config.get("trainable_only"):
        return predict(*load_light(folder))
    return predict(*kind_of(config).load(folder))


def predict_on_hub(
    repo_id: str,
    revision: str,
    like: Predictions | None = None,
    token: str | bool | None = None,
    *,
    trainable_only: bool = False,
    home: str | os.PathLike | None = None,
) -> Predictions:
    """What a published model predicts in a fresh process, on the texts of `like` if given; arguments as for `verify`.

    Raises:
        VerificationError: it could not be loaded.
    """
    check_token(token)
    token = token_to_send(token)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in (*_OF_THIS_MACHINE, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    }
    with tempfile.TemporaryDirectory(prefix="tall-verify-") as aside:
        environment |= {"HF_HOME": str(home or Path(aside, "home")), "HF_ENDPOINT": constants.ENDPOINT}
        environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | ({"HF_TOKEN": token} if token else {})
        request = {
            "repo_id": repo_id,
            "revision": revision,
            "trainable_only": trainable_only,
            "texts": like.texts if like else None,
            "threads": torch.get_num_threads(),
        }
        Path(aside, REQUEST_NAME).write_text(json.dumps(request), encoding="utf-8")
        hidden = [] if trainable_only else ["tall_hf"]
        start = json.dumps([library_paths(), hidden, fresh_process.__file__, aside])
        done = subprocess.run(
            [sys.executable, "-I", "-c", _START, start],
            env=environment,
            cwd=aside,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            said = (done.stderr.replace(token, "***") if token else done.stderr).strip()
            last = said.splitlines()[-1] if said else "it said nothing"
            if done.returncode < 0:
                last = f"it was ended by signal {-done.returncode}, as for want of memory"
            error = VerificationError(
                f"{repo_id} at {revision} could not be loaded from the Hub in a fresh process: {last} (`tall --debug` shows "
                "all it said)."
            )
            error.add_note(said)
            raise error
        return Predictions.load(Path(aside))


def _differences(expected: Predictions, found: Predictions) -> list[str]:
    """A sentence for every tensor that is not bit for bit the expected one."""
    differences = []
    for name in sorted(expected.tensors.keys() | found.tensors.keys()):
        ours, theirs = expected.tensors.get(name), found.tensors.get(name)
        if ours is None or theirs is None:
            differences.append(f"{name} is there only {'locally' if theirs is None else 'on the Hub'}")
        elif ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            differences.append(
                f"{name} is {theirs.dtype} of shape {tuple(theirs.shape)} instead of {ours.dtype} of {tuple(ours.shape)}"
            )
        elif not torch.equal(ours, theirs):
            unequal = ours != theirs
            most = (ours[unequal].double() - theirs[unequal].double()).abs().max().item()
            differences.append(f"{name} differs in {unequal.sum()} of {ours.numel()} numbers, by {most:.3g} at most")
    return differences
