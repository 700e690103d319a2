"""What the source never does: unpickle, and, in the remote code, open a file, a connection or a process."""

import re
from pathlib import Path

import pytest
import yaml
from source_scanner import reaching_out, unpickling

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
# Parts of a TALL, where the user says so, and then by `weights_only`.
WITH_PERMISSION = {"src/tall_hf/loading.py": ["use_safetensors=None if allow_pickle else True"]}


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    assert unpickling(path.read_text(encoding="utf-8")) == WITH_PERMISSION.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_archive_is_unpacked(path):
    """Whose paths could lead out of a folder."""
    assert not re.search(r"tarfile|zipfile|unpack_archive|extractall", path.read_text(encoding="utf-8"))


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
        "model.from_pretrained('x', use_safetensors=None)",
        "AutoModelForCausalLM.from_pretrained('x')",
        "transformers.AutoModel.from_pretrained('x', **options)",
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
