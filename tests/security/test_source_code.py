"""What the source never does: unpickle, and, in the remote code, open a file, a connection or a process."""

import ast
import importlib
import types
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

PICKLING = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "pickletools", "shelve"}
TORCH_PICKLING = {"torch.load", "torch.serialization.load", "torch.jit.load", "torch.hub", "torch.package"}

# What remote code may import, and look into by a dot: no module that is not named here.
REMOTE_MODULES = {"abc", "contextlib", "copy", "functools", "math", "torch"}
SUBMODULES = {
    "torch.compiler",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "transformers.initialization",
    "transformers.utils.logging",
}
# And by these names alone: nothing of them fetches, writes or runs, but for the methods below.
REMOTE_NAMES = {
    "collections.abc": {"Callable"},
    "itertools": {"islice"},
    "pathlib": {"Path"},
    "torch": {"nn"},
    "transformers": {
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForSeq2SeqLM",
        "BatchFeature",
        "CONFIG_MAPPING",
        "GenerationConfig",
        "GenerationMixin",
        "MarianConfig",
        "Pipeline",
        "PreTrainedConfig",
        "PreTrainedModel",
        "ProcessorMixin",
        "StoppingCriteria",
        "StoppingCriteriaList",
        "TextStreamer",
        "initialization",
    },
    "transformers.cache_utils": {"Cache", "DynamicCache", "EncoderDecoderCache"},
    "transformers.generation": {"BaseStreamer"},
    "transformers.modeling_layers": {"GradientCheckpointingLayer"},
    "transformers.modeling_outputs": {"BaseModelOutput", "CausalLMOutputWithPast", "Seq2SeqLMOutput"},
    # Of files whose names end in .safetensors, which it reads by that library alone.
    "transformers.modeling_utils": {"load_state_dict"},
    "transformers.models.marian.modeling_marian": {"MarianDecoder", "MarianEncoder"},
    "transformers.processing_utils": {"ProcessingKwargs", "Unpack"},
    "transformers.utils": {"can_return_tuple", "logging"},
    "typing": {"TYPE_CHECKING", "get_args", "get_origin"},
}
RUNNING = {
    "__builtins__",
    "__import__",
    "__loader__",
    "__spec__",
    "breakpoint",
    "compile",
    "eval",
    "exec",
    "globals",
    "input",
    "locals",
    "open",
}
# Attributes, of whatever they are: on files, the Hub and the system.
FORBIDDEN = {
    "__builtins__",
    "__code__",
    "__globals__",
    "__loader__",
    "__self__",
    "__subclasses__",
    "cached_file",
    "chmod",
    "from_file",
    "glob",
    "hardlink_to",
    "hub",
    "import_module",
    "iterdir",
    "load",
    "load_library",
    "mkdir",
    "multiprocessing",
    "open",
    "os",
    "push_to_hub",
    "read_bytes",
    "read_text",
    "rename",
    "rglob",
    "rmdir",
    "save",
    "snapshot_download",
    "subprocess",
    "symlink_to",
    "sys",
    "touch",
    "unlink",
    "write_bytes",
    "write_text",
}
# Where these are what the user has called for: loading by the class's own method, saving by the pipeline's.
ALLOWED_CALLS = {
    "from_pretrained": {"super()"},
    "save_pretrained": {"super()", "self.model", "self.processor"},
}


def imports(tree):
    """(module, name imported from it or None, what it is called here) of each absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)


def aliases(tree) -> dict[str, str]:
    """The dotted names that imported names stand for."""
    known = {}
    for module, name, called in imports(tree):
        whole = module if called != module.split(".")[0] else called
        known[called] = f"{module}.{name}" if name else whole
    return known


def dotted(node, known=()) -> str:
    """`a.b.c` of such an expression, by its imported name; empty for another one."""
    if isinstance(node, ast.Name):
        return dict(known).get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, known)):
        return f"{before}.{node.attr}"
    return ""


def unpickling(code: str) -> list[str]:
    """What in a file's code may unpickle something, or read YAML that makes objects."""
    tree = ast.parse(code)
    known, found = aliases(tree), []
    for module, name, _ in imports(tree):
        whole = f"{module}.{name}" if name else module
        if {part.lstrip("_") for part in module.split(".")} & PICKLING or (name or "").endswith("Pickler"):
            found.append(whole)
        if any(f"{whole}.".startswith(f"{one}.") for one in TORCH_PICKLING):
            found.append(whole)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "__builtins__":
            found.append(node.id)
        if isinstance(node, ast.Attribute) and id(node) not in called and dotted(node, known) in TORCH_PICKLING:
            found.append(dotted(node, known))  # under another name it would not be known
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, known)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in TORCH_PICKLING and not (
            name == "torch.load" and getattr(options.get("weights_only"), "value", None) is True
        ):
            found.append(name)
        if name.split(".")[0] in ("np", "numpy") and (
            "allow_pickle" in options or name.endswith(".load") and len(node.args) > 2
        ):
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
        if name.split(".")[-1] in ("import_module", "__import__"):
            found += [
                one.value
                for one in node.args
                if isinstance(one, ast.Constant) and str(one.value).split(".")[0] in PICKLING
            ]
    return found


def modules_on_the_way(name: str) -> set[str]:
    """The modules that `a.b.c` goes through, by their own names, as `logging.os` goes to `os`."""
    parts, found = name.split("."), set()
    for end in range(len(parts), 0, -1):
        try:
            here = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        found.add(here.__name__)
        for part in parts[end:]:
            here = getattr(here, part, None)
            if isinstance(here, types.ModuleType):
                found.add(here.__name__)
        return found
    return found


def reaching_out(code: str) -> list[str]:
    """What in a file of remote code might reach a file, the network or a process."""
    tree = ast.parse(code)
    known, found = aliases(tree), []
    for module, name, _ in imports(tree):
        if name not in REMOTE_NAMES.get(module, ()) if name else module not in REMOTE_MODULES:
            found.append(f"import of {name} from {module}" if name else f"import {module}")
    if found:
        return found  # what follows looks into what is imported
    looked_into = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            # A library of the neighbour's would be one that is not seen here.
            names = {alias.name for alias in node.names} & {*REMOTE_MODULES, "*", "Path", "nn", "logging"}
            found += [f"import of {name} from the package" for name in names] + ["import"] * (node.level > 1)
        if isinstance(node, ast.Name):
            found += [node.id] * (node.id in RUNNING)
            if node.id in known and id(node) not in looked_into and known[node.id] in {*REMOTE_MODULES, *SUBMODULES}:
                found.append(f"{node.id} under another name")
        if isinstance(node, ast.Attribute):
            found += [node.attr] * (node.attr in FORBIDDEN)
            if node.attr in ALLOWED_CALLS and ast.unparse(node.value) not in ALLOWED_CALLS[node.attr]:
                found.append(ast.unparse(node))
            name = dotted(node, known)
            if name.split(".")[0] in {module.split(".")[0] for module in known.values()}:
                through = modules_on_the_way(name) - {"transformers", "transformers.utils"}
                found += through - REMOTE_MODULES - SUBMODULES - REMOTE_NAMES.keys()
        if isinstance(node, ast.Call):
            name = dotted(node.func, known)
            if name in ("getattr", "setattr", "delattr", "vars"):
                said = {one.value for one in node.args if isinstance(one, ast.Constant)}
                if dotted(node.args[0], known).split(".")[0] in {one.split(".")[0] for one in known.values()}:
                    found.append(f"{name} of what is imported")
                found += said & {*FORBIDDEN, *RUNNING, *ALLOWED_CALLS}
            if isinstance(node.func, ast.Attribute) and node.func.attr == "replace" and len(node.args) < 2:
                found.append("replace of a file")  # a text's takes two
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
        "import torch as t\nt.load('x')",
        "from torch.serialization import load\nload('x')",
        "import torch\nload = torch.load\nload('x')",
        "import torch\ntorch.jit.load('x')",
        "import torch\ntorch.hub.load('a', 'b')",
        "from torch import package",
        "import numpy\nnumpy.load('x', None, True)",
        "import pandas as pd\npd.read_pickle('x')",
        "import importlib\nimportlib.import_module('pickle')",
        "from multiprocessing.reduction import ForkingPickler",
        "import _pickle",
        "getattr(__builtins__, 'eval')('1')",
        "from datasets.utils._dill import loads",
        "from joblib.externals import cloudpickle",
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
        "from transformers import AutoModel\nAutoModel.from_pretrained('evil/x')",
        "from torch.hub import load_state_dict_from_url\nload_state_dict_from_url('http://x')",
        "from torch.hub import download_url_to_file",
        "from transformers.utils.hub import http_get",
        "from transformers.utils.hub import cached_files",
        "from transformers.utils import is_torch_available as x, cached_files",
        "from transformers.dynamic_module_utils import get_class_from_dynamic_module",
        "from torch.utils.cpp_extension import load_inline",
        "import torch\ntorch.utils.cpp_extension.load_inline('x', 'y')",
        "from torch import load\nload('x')",
        "from torch.serialization import load",
        "import torch as t\nt.load('x')",
        "import torch as t\nt.save({}, 'x')",
        "import torch\nt = torch\nt.saving({}, 'x')",
        "import torch\ngetattr(torch, 'load')('x')",
        "import torch\ngetattr(torch, name)('x')",
        "getattr(model, 'push_to_hub')('x')",
        "import torch\ntorch.jit.load('x')",
        "import torch\ntorch.nn.modules.module.torch.serialization.get_default_load_endianness()",
        "from torch import jit\njit.load('x')",
        "from pathlib import Path\nPath('x').replace('y')",
        "from pathlib import Path\nlist(Path('/').rglob('*'))",
        "from pathlib import Path\nPath('x').hardlink_to('y')",
        "model.push_to_hub('x')",
        "model.save_pretrained('x')",
        "import torch\ntorch.ops.load_library('x')",
        "import torch\ntorch.from_file('x')",
        "import typing\ntyping.sys.modules['os'].system('id')",
        "import contextlib\ncontextlib.os.remove('x')",
        "import functools\nf = functools.reduce.__self__.open",
        "import copy\ncopy.sys.modules['subprocess']",
        "from transformers.utils import logging\nlogging.os.system('id')",
        "from transformers.utils import logging\nlogging.threading",
        "import transformers\ntransformers.utils.os.system('id')",
        "from .words_tall import torch",
        "from .modeling_tall import *",
    ],
)
def test_reaching_out_is_found(code):
    assert reaching_out(code)


def test_both_scans_see_all_files():
    assert {path.name for path in REMOTE_CODE} >= {"modeling_tall.py", "processing_layer_fusion.py"}
    assert len(SOURCE) > 80 and set(REMOTE_CODE) <= set(SOURCE)
