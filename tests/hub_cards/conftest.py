"""What the tests of the Space share: its code, and the Space itself, run by a process without this package."""

import runpy
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from huggingface_hub import HfApi
from nasty_texts import HTML

from tall_hf import compose
from tall_hf.microworld import World, component_path


SPACE = Path(__file__).parents[2] / "hub_cards" / "space"
CHILD = """
import importlib.util, runpy, sys
site_packages, space, *sys.argv[1:] = sys.argv[1:]
# Appended by hand, so that no .pth file is read: an editable installation of this package stays out of reach.
sys.path += [site_packages, space]
assert importlib.util.find_spec("tall_hf") is None
runpy.run_path(f"{space}/app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def app():
    """The names of app.py, imported as a Space does it: with its folder on the path."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'tall-hf[space]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SPACE)
        names = SimpleNamespace(**runpy.run_path(str(SPACE / "app.py")))
        yield names
    for name in ("page", "naive"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def tall():
    """The embedded default before its training: the LLM knows the world's facts, the adapters nothing."""
    return compose(**{role: component_path(role) for role in ("lr_hr", "llm", "hr_lr")}, source_bridge="gated")


@pytest.fixture(scope="module")
def published(hub, tall, tmp_path_factory):
    """`org/name@commit` of it, with a card that names the language and sentences to try; the next commit's card does not."""
    folder = tmp_path_factory.mktemp("tall")
    for made in tall:
        made.save_pretrained(folder)
    card = {
        "language": ["he"],
        "widget": [{"text": "דנה גרה בעיר"}, {"text": "דנה גרה בעיר"}, {"text": HTML}, {"src": "no text"}],
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, allow_unicode=True)}---\n", encoding="utf-8")
    api = HfApi()
    api.create_repo("tall-tests/space")
    commit = api.upload_folder(repo_id="tall-tests/space", folder_path=folder)
    api.upload_file(repo_id="tall-tests/space", path_in_repo="README.md", path_or_fileobj=b"---\nlanguage: en\n---\n")
    return f"tall-tests/space@{commit.oid}"


@pytest.fixture(scope="module")
def server(hub, published, tmp_path_factory):
    """The `url` of the Space and its `process`, which cannot import this package and is told the model by a variable."""
    out = tmp_path_factory.mktemp("space")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = hub.environment() | {"GRADIO_SERVER_PORT": str(port), "TALL_MODEL": published}
    command = [sys.executable, "-u", "-I", "-S", "-c", CHILD, sysconfig.get_path("purelib"), str(SPACE)]
    with open(out / "log", "w", encoding="utf-8") as log:
        child = subprocess.Popen(command, env=environment, cwd=out, stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 200
            while "Running on local URL" not in (out / "log").read_text(encoding="utf-8"):
                assert child.poll() is None and time.monotonic() < until, (out / "log").read_text(encoding="utf-8")
                time.sleep(0.2)
            yield SimpleNamespace(url=f"http://127.0.0.1:{port}/", process=psutil.Process(child.pid))
        finally:
            child.terminate()
            child.wait(30)


@pytest.fixture(scope="module")
def client(server):
    gradio_client = pytest.importorskip("gradio_client")
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture(scope="module")
def records():
    held_out = World().records(0)[1]
    return [record for record in held_out if record.kind == "same_order"][:4]
