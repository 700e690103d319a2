"""Run transformers' own common tests on our classes.

The source archive of the installed transformers release carries the common tests. They are unpacked under `.peer/`,
our testers are put beside them, where their relative imports look for a model's tests, and pytest runs the testers.
Arguments are handed to pytest: `python tests/peer/run.py -n 2 -k tied`.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path


HERE = Path(__file__).parent
PEER = HERE.parents[1] / ".peer"

# Modules the common tests import and the archive leaves out.
STAND_INS = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}
PYTEST_INI = """\
[pytest]
addopts = -ra
markers =
    generate: marks tests of `generate`
    is_training_test: marks tests of training
filterwarnings =
    ignore::DeprecationWarning
    ignore::FutureWarning
    ignore:Recommended. pip install sacremoses:UserWarning
"""


def download(version: str) -> Path:
    """Return the folder with the source archive's tests, fetching and unpacking them the first time."""
    folder = PEER / f"transformers-{version}"
    if (folder / "tests" / "test_modeling_common.py").is_file():
        return folder
    PEER.mkdir(exist_ok=True)
    # Without build isolation pip reads the metadata with the setuptools that is installed here, and builds nothing.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", "transformers", "--dest", str(PEER), f"transformers=={version}"]
    subprocess.run(command, check=True)
    with tarfile.open(PEER / f"transformers-{version}.tar.gz") as archive:
        members = [m for m in archive.getmembers() if m.name.startswith(f"transformers-{version}/tests/")]
        archive.extractall(PEER, members=members, filter="data")
    return folder


def lay_out(folder: Path) -> Path:
    """Put the stand-ins, the package markers and our testers where the common tests' imports look for them."""
    testers = folder / "tests" / "models" / "tall"
    shutil.rmtree(testers, ignore_errors=True)
    testers.mkdir(parents=True)
    for name, text in STAND_INS.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for package in (folder / "tests").rglob("*"):
        if package.is_dir() and package.name != "__pycache__":
            (package / "__init__.py").touch()
    (folder / "tests" / "__init__.py").touch()
    (folder / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    for source in [HERE / "conftest.py", *HERE.glob("test_*.py")]:
        shutil.copy(source, testers)
    return testers


def main(pytest_arguments: list[str]) -> int:
    folder = download(importlib.metadata.version("transformers"))
    testers = lay_out(folder)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "pytest", str(testers.relative_to(folder)), *pytest_arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
