"""Imports: what another interpreter imports from, never this one's cache of remote code; and no import asks a network."""

import os
import subprocess
import sys
from pathlib import Path

import transformers
from transformers.utils import HF_MODULES_CACHE

from tall_hf.imports import library_paths


def test_libraries_are_found_and_remote_code_of_this_process_is_not(tmp_path, monkeypatch):
    os.makedirs(HF_MODULES_CACHE, exist_ok=True)
    # As transformers leaves the path behind remote code that it loaded.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, HF_MODULES_CACHE, str(tmp_path / "gone")])
    paths = library_paths()
    assert not {str(tmp_path), str(tmp_path / "gone"), HF_MODULES_CACHE} & set(paths)
    code = f"import sys; sys.path += {paths!r}; import transformers; print(transformers.__file__)"
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == transformers.__file__


# Asks nobody: every name is looked up, and every connection made, by one of these.
_WITHOUT_A_NETWORK = """
import socket, sys
asked = []

def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError("no network")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = socket.socket.connect_ex = refuse
import importlib, pkgutil
import torch, tall_hf
for module in pkgutil.walk_packages(tall_hf.__path__, "tall_hf."):
    # What hub_cards holds is published as it is, and runs elsewhere.
    if not module.name.startswith("tall_hf.hub_cards.") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
with torch.device("meta"):
    tall_hf.TALLForCausalLM(tall_hf.TALLConfig())
    tall_hf.LayerFusionForCausalLM(tall_hf.LayerFusionConfig())
tall_hf.TALLForCausalLM.from_pretrained(sys.argv[1])
tall_hf.TALLProcessor.from_pretrained(sys.argv[1])
print(asked)
"""


def test_importing_building_and_loading_a_folder_ask_no_network(tmp_path):
    saved = Path(__file__).parent / "golden" / "saved" / "tall"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_A_NETWORK, saved],
        env=environment | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "[]"
