"""Fixtures of all tests: tiny parts, written at their first use in each worker, and small TALLs composed of them."""

import os


# Before anything imports huggingface_hub, which reads it once: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import copy
import functools
import gc
import subprocess
import sys

import parts
import pytest
import torch
import transformers
from huggingface_hub import constants, hf_api, repocard
from huggingface_hub.utils import get_session
from transformers import AutoConfig
from transformers.utils import hub as transformers_hub

from tall_hf import TALLConfig, compose, compose_layer_fusion
from tall_hf.files import LOCK_NAME


transformers.logging.disable_progress_bar()


def pytest_generate_tests(metafunc):
    """Run a test that takes `bridge`, `translator` or `llm` once for each of them."""
    for name, values in (("bridge", parts.BRIDGES), ("translator", tuple(parts.TRANSLATORS)), ("llm", parts.LLMS)):
        marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
        if name in metafunc.fixturenames and not any(name in names for names in marked):
            metafunc.parametrize(name, values)


def pytest_collection_finish():
    """Take the imported libraries out of the garbage collector's sight: a collection walks what a test made, not torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def part(tmp_path_factory):
    """`part(kind)` is the folder of a tiny checkpoint; parts of different seeds have different weights."""
    root = tmp_path_factory.mktemp("parts")

    @functools.cache
    def write(kind, seed):
        return parts.write(kind, root / f"{kind}-{seed}", seed)

    return lambda kind, seed=0: write(kind, seed)


@pytest.fixture(scope="session")
def part_folders(part):
    """`part_folders(translator, llm)` are the arguments that compose a TALL of these families."""

    def folders(translator="marian", llm="qwen2"):
        lr_hr, hr_lr, languages = parts.TRANSLATORS[translator]
        return {"lr_hr": part(lr_hr), "llm": part(llm), "hr_lr": part(hr_lr, 1), **languages}

    return folders


@pytest.fixture(scope="session")
def composed(part_folders):
    """`composed(bridge, translator, llm)` is a model and its processor, shared by all tests: not to be changed.

    The adapters are moved off their start, so that the gate is open and no bias is zero.
    """

    @functools.cache
    def build(bridge="gated", translator="marian", llm="qwen2", **switches):
        folders = part_folders(translator, llm)  # which seeds too, if they are written now
        torch.manual_seed(2)
        model, processor = compose(**folders, source_bridge=bridge, **switches)
        return parts.stir(model), processor

    return build


@pytest.fixture
def fresh(composed):
    """As `composed`, in copies that a test may change."""
    return lambda *args, **kwargs: tuple(copy.deepcopy(made) for made in composed(*args, **kwargs))


@pytest.fixture(scope="session")
def fused(part):
    """`fused(llm, encoder)` is a LayerFusionForCausalLM and its processor, shared by all tests: not to be changed."""

    @functools.cache
    def build(llm="llama", encoder="nllb", **switches):
        folders = part(encoder), part(llm)
        torch.manual_seed(2)
        model, processor = compose_layer_fusion(*folders, source_lang="heb_Hebr", **switches)
        return parts.stir(model), processor

    return build


@pytest.fixture
def tiny_config(part_folders):
    """`tiny_config(**switches)` is a TALLConfig of the tiny parts, for models with random weights."""

    def build(translator="marian", llm="qwen2", **switches):
        folders = part_folders(translator, llm)
        parts_ = {f"{role}_config": AutoConfig.from_pretrained(folders[role]) for role in ("lr_hr", "llm", "hr_lr")}
        return TALLConfig(**parts_, **switches)

    return build


@pytest.fixture
def at_work():
    """`at_work(folder)` is the id of another process, which holds the lock of a folder until the test ends."""
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); sys.stdin.read()"
    holders = []

    def hold(folder):
        folder.mkdir()
        command = [sys.executable, "-c", code, str(folder / LOCK_NAME)]
        holders.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert holders[-1].stdout.readline()
        return holders[-1].pid

    yield hold
    for holder in holders:
        holder.kill()
        holder.communicate()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub on this machine (`hub.server.Hub`), which huggingface_hub in this process talks to while a file's tests run.

    So do child processes; with `env=hub.environment()` one starts with a cache of its own, which is empty. Each file's
    tests have a Hub of their own, so a test that counts requests clears `hub.requests` first, and tests name their
    repositories apart.
    """
    from hub.server import serve  # here, for the web server takes time to import and few tests want it

    with serve(tmp_path_factory.mktemp("hub")) as served, pytest.MonkeyPatch.context() as patch:
        environment = served.environment(home=served.folder / "home")
        # For what is read at each use, and for the processes that this one starts.
        patch.delenv("HF_HUB_OFFLINE")
        for name in environment.keys() - os.environ.keys():
            patch.setenv(name, environment[name])
        # For what huggingface_hub read when it was imported.
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", f"{environment['HF_HOME']}/hub")
        # Which the lowest versions do not have.
        patch.setattr(
            constants, "AGENT_HARNESSES_PATH", f"{environment['HF_HOME']}/agent-harnesses.json", raising=False
        )
        patch.setattr(constants, "ENDPOINT", served.endpoint)
        resolve = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        patch.setattr(hf_api.api, "endpoint", served.endpoint)
        # transformers keeps a client of its own, which would ask the Hub of another file's tests, for minutes.
        patch.setattr(transformers_hub, "_hf_api", None)
        # The lowest version has a card checked by the real Hub, whatever the endpoint is.
        patch.setattr(repocard, "get_session", lambda: _Redirected(get_session(), served.endpoint))
        yield served


class _Redirected:
    """A client that posts to `endpoint` what is meant for the real Hub."""

    def __init__(self, client, endpoint):
        self.client, self.endpoint = client, endpoint

    def post(self, url, **options):
        return self.client.post(url.replace(constants._HF_DEFAULT_ENDPOINT, self.endpoint), **options)
