"""What the source never does: unpickle, and, in the remote code, open a file, a connection or a process."""

import ast
import importlib
import re
import sys
import types
from pathlib import Path, PurePath

import pytest
import yaml

from tall_hf import publishing, yaml_files


ROOT = Path(__file__).parents[2]
SOURCE = sorted(
    path
    for room in ("src/tall_hf", "modeling", "hub_cards", "examples", "benchmarks")
    for path in (ROOT / room).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)
REMOTE_CODE = sorted((ROOT / "modeling").glob("*.py"))
# Of cards and of what lies beside a model or a Space, but code.
TEMPLATES = sorted(path for path in (ROOT / "hub_cards").rglob("*") if path.suffix in (".j2", ".md", ".txt"))

PICKLING = {
    "cPickle",
    "cloudpickle",
    "copyreg",
    "dill",
    "diskcache",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "pickletools",
    "runpy",
    "shelve",
}
# What unpickles of libraries that are used for much else; of all but `torch.load` neither a call nor a name is to be seen.
UNPICKLERS = {
    "accelerate.utils.load",
    "torch.distributed.checkpoint",
    "torch.export.load",
    "torch.hub",
    "torch.jit.load",
    "torch.load",
    "torch.package",
    "torch.serialization.add_safe_globals",
    "torch.serialization.load",
    "torch.serialization.safe_globals",
    "torch.storage",
    "torch.utils.model_zoo",
    "multiprocessing.connection",
    "multiprocessing.reduction",
}
# Of whatever they are methods of.
UNPICKLING_METHODS = {
    "full_load",
    "full_load_all",
    "load_state",
    "read_pickle",
    "to_pickle",
    "unsafe_load",
    "unsafe_load_all",
}

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
# Of a path remote code asks whether it is there; all else that a path does with files is forbidden, in later versions of Python
# too. `replace` is a text's as well: see below.
_OF_LATER_PATHS = {"copy_into", "link_to", "move", "move_into", "walk"}
_OF_PATHS = {name for name in {*dir(Path)} - {*dir(PurePath)} if not name.startswith("__")} | _OF_LATER_PATHS
# Attributes, of whatever they are: on files, the Hub and the system, and ways around to them.
FORBIDDEN = (_OF_PATHS - {"copy", "exists", "is_dir", "is_file", "replace"}) | {
    "__base__",
    "__bases__",
    "__builtins__",
    "__code__",
    "__dict__",
    "__func__",
    "__getattribute__",
    "__globals__",
    "__loader__",
    "__mro__",
    "__reduce__",
    "__reduce_ex__",
    "__self__",
    "__subclasses__",
    "__traceback__",
    "__wrapped__",
    "_dict_from_json_file",
    "addHandler",
    "add_handler",
    "cached_file",
    "dump",
    "dumps",
    "f_back",
    "f_builtins",
    "f_globals",
    "from_file",
    "from_json_file",
    "get_processor_dict",
    "gi_frame",
    "hub",
    "import_module",
    "load",
    "load_adapter",
    "load_library",
    "multiprocessing",
    "os",
    "push_to_hub",
    "save",
    "snapshot_download",
    "subprocess",
    "sys",
    "tb_frame",
    "to_json_file",
    "tofile",
}
# Where these are what the user has called for: loading by the class's own method, saving by the pipeline's, and the index of a
# checkpoint's weights by what reads its configuration.
ALLOWED_CALLS = {
    "from_pretrained": {"super()"},
    "get_config_dict": {"PreTrainedConfig"},
    "save_pretrained": {"super()", "self.model", "self.processor"},
}
# Of these an attribute may have a name that is computed: of a configuration or a module, and none of what is imported.
COMPUTED_ATTRIBUTES = {"self", "config", "config_class", "layer", "one", "part"}


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
        if {part.lstrip("_") for part in whole.split(".")} & PICKLING or whole.endswith("Pickler"):
            found.append(whole)
        if any(f"{whole}.".startswith(f"{one}.") for one in UNPICKLERS):
            found.append(whole)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    keys = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "__builtins__":
            found.append(node.id)
        if isinstance(node, ast.Constant) and node.value == "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD":
            found.append(node.value)
        if isinstance(node, ast.Constant) and node.value == "allow_pickle" and id(node) in keys:
            found.append("allow_pickle")
        if isinstance(node, ast.Attribute) and id(node) not in called and dotted(node, known) in UNPICKLERS:
            found.append(dotted(node, known))  # under another name it would not be known
        if (
            isinstance(node, ast.keyword)
            and node.arg == "weights_only"
            and getattr(node.value, "value", None) is not True
        ):
            found.append("weights_only")
        if (
            isinstance(node, ast.keyword)
            and node.arg == "use_safetensors"
            and getattr(node.value, "value", None) is False
        ):
            found.append("use_safetensors=False")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, known)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in UNPICKLERS and not (name == "torch.load" and "weights_only" in options):
            found.append(name)
        if name.split(".")[0] in ("np", "numpy") and (
            "allow_pickle" in options or name.endswith(".load") and len(node.args) > 2
        ):
            found.append(f"{name}(allow_pickle)")
        if name.split(".")[-1] in UNPICKLING_METHODS:
            found.append(name)
        if name == "getattr" and dotted(node.args[0], known).split(".")[0] in ("torch", "numpy", "yaml"):
            attribute = getattr(node.args[1], "value", None)
            # A dtype is looked up by its name, and compared with what a dtype is.
            is_dtype = dotted(node.args[0], known) == "torch" and not isinstance(attribute, str)
            found += [] if is_dtype else [f"getattr of {attribute}"]
        if name in ("yaml.load", "yaml.load_all") and dotted(node.args[-1]) not in ("_Loader", "yaml.SafeLoader"):
            found.append(name)
        if name in ("eval", "exec", "compile", "builtins.eval", "builtins.exec"):
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
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    # `kwargs["trust_remote_code"] = False`
    untrusting = {
        id(target.slice)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.value, "value", None) is False
        for target in node.targets
        if isinstance(target, ast.Subscript)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            # A library of the neighbour's would be one that is not seen here.
            names = {alias.name for alias in node.names}
            names &= {*REMOTE_MODULES, *sys.stdlib_module_names, "*", "Path", "nn", "logging"}
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
                if name != "vars" and not isinstance(node.args[1], ast.Constant):
                    whose = ast.unparse(node.args[0])
                    found += [] if whose in COMPUTED_ATTRIBUTES else [f"{name} of {whose} by a computed name"]
            if isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
                # A text's takes two, and a path's one.
                is_of_text = len(node.args) == 2 and not any(isinstance(one, ast.Starred) for one in node.args)
                found += (
                    [] if is_of_text and dotted(node.func, known) != "pathlib.Path.replace" else ["replace of a file"]
                )
        if isinstance(node, ast.Attribute) and node.attr == "replace" and id(node) not in called:
            found.append("replace under another name")
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "weights_only", "allow_all_kernels"):
            found.append(node.arg)
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code" and id(node) not in untrusting:
            found.append(node.value)
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
        "from sklearn.externals import joblib",
        "import numpy as np\nnp.load('x', **{'allow_pickle': True})",
        "import torch\ntorch.load('x', weights_only=flag)",
        "import torch\ngetattr(torch, 'load')('x')",
        "import torch\ntorch.serialization.add_safe_globals([x])",
        "import torch\nwith torch.serialization.safe_globals([x]): pass",
        "import torch.storage\ntorch.storage._load_from_bytes(b'')",
        "import torch\ntorch.export.load('x')",
        "import torch.distributed.checkpoint as dcp\ndcp.load(x)",
        "from accelerate.utils import load\nload('x')",
        "accelerator.load_state('x')",
        "import os\nos.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'",
        "from transformers.modeling_utils import load_state_dict\nload_state_dict('x', weights_only=False)",
        "model.from_pretrained('x', use_safetensors=False)",
        "import multiprocessing\nmultiprocessing.reduction.ForkingPickler.loads(b'')",
        "import builtins\nbuiltins.eval(text)",
        "import runpy\nrunpy.run_path('x')",
        "import copyreg",
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
        "from .modeling_tall import os",
        "import torch\ntorch.__dict__['load']('x')",
        "import torch\ntorch.__getattribute__('load')('x')",
        "import torch\nfetch = getattr\nfetch(torch, 'lo' + 'ad')('x')",
        "from pathlib import Path\npath = Path('x')\ngetattr(path, 'write' + '_text')('y')",
        "from pathlib import Path\npath = Path('x')\ngetattr(path, name)('y')",
        "getattr(self.path, 'op' + 'en')()",
        "from pathlib import Path\nlist(Path('/').walk())",
        "from pathlib import Path\nPath('x').stat()",
        "from pathlib import Path\nPath('x').readlink()",
        "from pathlib import Path\nPath('x').move('y')",
        "from pathlib import Path\nPath('x').copy_into('y')",
        "from pathlib import Path\nPath.replace(Path('x'), 'y')",
        "from pathlib import Path\nmove = Path.replace\nmove(Path('x'), 'y')",
        "from pathlib import Path\nPath('x').replace(*['y', 'z'])",
        "from transformers import AutoModel\nAutoModel.from_config(config, **{'trust_remote_code': True})",
        "kwargs['trust_remote_code'] = True",
        "from transformers import PreTrainedConfig\nPreTrainedConfig.from_json_file('/etc/passwd')",
        "from transformers import GenerationConfig\nGenerationConfig.get_config_dict('evil/x')",
        "from transformers import ProcessorMixin\nProcessorMixin.get_processor_dict('evil/x')",
        "from transformers.modeling_utils import load_state_dict\nload_state_dict('x', weights_only=False)",
        "config.to_json_file('/tmp/x')",
        "model.load_adapter('evil/x')",
        "tensor.numpy().tofile('x')",
        "tensor.numpy().dump('x')",
        "error.__traceback__.tb_frame.f_globals",
        "rows.gi_frame.f_builtins['open']('x')",
        "method.__func__.__globals__",
        "().__class__.__mro__[1].__subclasses__()",
        "from transformers.utils import logging\nlogging.get_logger('x').addHandler(handler)",
    ],
)
def test_reaching_out_is_found(code):
    assert reaching_out(code)


@pytest.mark.parametrize("name", ["composed", "fused"])
def test_nothing_that_is_published_unpickles(request, name, tmp_path):
    folder = publishing.save(*request.getfixturevalue(name)(), tmp_path / "model")
    planned = publishing.plan(folder, card="---\nlicense: mit\n---\n# A model\n")
    code = {}
    for file in planned:
        content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
        # What is pickled begins so, and what torch.save wrote is an archive.
        assert not content.startswith((b"\x80", b"PK")), file.path_in_repo
        if file.path_in_repo.endswith(".py"):
            code[file.path_in_repo] = content.decode("utf-8")
    assert len(code) > 5 and not [name for name, text in code.items() if unpickling(text)]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_card_tells_anybody_to_unpickle(path):
    assert not re.search(r"torch\.load|pickle|joblib", path.read_text(encoding="utf-8"))


def test_both_scans_see_all_files():
    assert {path.name for path in REMOTE_CODE} >= {"modeling_tall.py", "processing_layer_fusion.py"}
    assert len(SOURCE) > 80 and len(TEMPLATES) > 5 and set(REMOTE_CODE) <= set(SOURCE)
