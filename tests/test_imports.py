"""What another interpreter imports from: this one's libraries, and never its cache of remote code."""

import os
import subprocess
import sys

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
