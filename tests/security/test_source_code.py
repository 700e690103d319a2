"""What the source never does: unpickle, and, in the remote code, open a file, a connection or a process."""

import ast
from pathlib import Path

import pytest
import yaml

from tall_hf import yaml_files


ROOT = Path(__file__).parents[2]
SOURCE = sorted(
    path
    for room in ("src/tall_hf", "modeling", "hub_cards", "examples", "benchmarks")
    for path in (ROOT / room).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)
REMOTE_CODE = sorted((ROOT / "modeling").glob("*.py"))

PICKLING = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# Libraries, and of the standard one what neither reaches the disk nor the network.
REMOTE_IMPORTS = {
    "torch",
    "transformers",
    "abc",
    "collections",
    "contextlib",
    "copy",
    "functools",
    "itertools",
    "math",
    "typing",
}
# Of these one name alone: a path to look whether something is there.
REMOTE_NAMES = {"pathlib": {"Path"}}
RUNNING = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"}
ON_FILES = {
    "chmod",
    "mkdir",
    "open",
    "read_bytes",
    "read_text",
    "rename",
    "rmdir",
    "symlink_to",
    "touch",
    "unlink",
    "write_bytes",
    "write_text",
}
# `torch` and `transformers` can do much of that too.
OF_LIBRARIES = {"cached_file", "hub", "load_library", "multiprocessing", "save", "snapshot_download", "import_module"}


def dotted(node) -> str:
    """`a.b.c` of such an expression; empty for another one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def imports(tree):
    """(module, names imported from it or none) of each absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, {alias.name for alias in node.names}


def unpickling(code: str) -> list[str]:
    """What in a file's code may unpickle something, or read YAML that makes objects."""
    tree = ast.parse(code)
    found = [module for module, _ in imports(tree) if module.split(".")[0] in PICKLING]
    found += [
        f"{module}.{name}" for module, names in imports(tree) for name in names if (module, name) == ("torch", "load")
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load" and getattr(options.get("weights_only"), "value", None) is not True:
            found.append(name)
        if "allow_pickle" in options and name.split(".")[0] in ("np", "numpy"):
            found.append(f"{name}(allow_pickle)")
        if name.split(".")[-1] in (
            "read_pickle",
            "to_pickle",
            "unsafe_load",
            "full_load",
            "unsafe_load_all",
            "full_load_all",
        ):
            found.append(name)
        if name in ("yaml.load", "yaml.load_all") and dotted(node.args[-1]) not in ("_Loader", "yaml.SafeLoader"):
            found.append(name)
        if name in ("eval", "exec"):
            found.append(name)
    return found


def reaching_out(code: str) -> list[str]:
    """What in a file of remote code might reach a file, the network or a process."""
    tree = ast.parse(code)
    found = []
    for module, names in imports(tree):
        allowed = module.split(".")[0] in REMOTE_IMPORTS or (names and names <= REMOTE_NAMES.get(module, set()))
        if not allowed or names & OF_LIBRARIES:
            found.append(f"import {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in RUNNING:
            found.append(node.id)
        if isinstance(node, ast.Attribute) and node.attr in ON_FILES:
            found.append(node.attr)
        if isinstance(node, ast.Attribute) and dotted(node).startswith(("torch.", "transformers.")):
            found += [dotted(node)] * bool({*dotted(node).split(".")} & {*OF_LIBRARIES, "load"})
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.append("trust_remote_code")
    return found


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    assert not unpickling(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", REMOTE_CODE, ids=lambda path: path.name)
def test_remote_code_stays_among_tensors(path):
    assert not reaching_out(path.read_text(encoding="utf-8"))


def test_the_yaml_that_settings_are_read_from_makes_no_objects():
    assert issubclass(yaml_files._Loader, yaml.SafeLoader)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "from torch import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval(text)",
    ],
)
def test_unpickling_is_found(code):
    assert unpickling(code)


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "import os",
        "import subprocess",
        "from urllib.request import urlopen",
        "import requests",
        "from huggingface_hub import hf_hub_download",
        "from transformers.utils import cached_file",
        "from pathlib import Path\nPath('x').write_text('y')",
        "import torch\ntorch.save({}, 'x')",
        "import torch\ntorch.hub.load('a', 'b')",
        "__import__('os').system('x')",
        "import importlib",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_reaching_out_is_found(code):
    assert reaching_out(code)


def test_both_scans_see_all_files():
    assert {path.name for path in REMOTE_CODE} >= {"modeling_tall.py", "processing_layer_fusion.py"}
    assert len(SOURCE) > 80 and set(REMOTE_CODE) <= set(SOURCE)
