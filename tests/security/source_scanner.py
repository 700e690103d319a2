"""What of a file's code may unpickle something or, in the remote code, reach a file, a connection or a process."""

import ast
import importlib
import sys
import types
from pathlib import Path, PurePath


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
            and getattr(node.value, "value", None) is not True
        ):
            found.append(f"use_safetensors={ast.unparse(node.value)}")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, known)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in UNPICKLERS and not (name == "torch.load" and "weights_only" in options):
            found.append(name)
        method = name.split(".")[-2:]
        if method[0].startswith("AutoModel") and method[-1] == "from_pretrained" and "use_safetensors" not in options:
            found.append(f"{name} without use_safetensors")
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
