"""The package as installed: every folder of the tree is listed in setup.cfg, every data file matches a pattern."""

import configparser
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PACKAGE_DIR = dict(
    (part.strip() for part in line.split("=")) for line in SETUP["options"]["package_dir"].split("\n") if line
)
PACKAGES = SETUP["options"]["packages"].split()


def folder_of(package: str) -> Path:
    """The folder of a dotted package name, by the longest entry of package_dir that it starts with."""
    prefix = max((p for p in PACKAGE_DIR if package == p or package.startswith(f"{p}.")), key=len)
    return ROOT.joinpath(PACKAGE_DIR[prefix], *package.removeprefix(prefix).split(".")[1:])


def test_every_package_of_the_tree_is_listed():
    found = set()
    for package, folder in PACKAGE_DIR.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((package, *init.parent.relative_to(ROOT / folder).parts)))
    assert found == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_listed_package_has_its_folder_and_modules_are_not_left_outside(package):
    folder = folder_of(package)
    assert (folder / "__init__.py").is_file()
    for module in folder.rglob("*.py"):
        inside = any(module.parent == folder_of(p) for p in PACKAGES)
        assert inside or package in SETUP["options.package_data"], f"{module} belongs to no package"


@pytest.mark.parametrize("package", list(SETUP["options.package_data"]))
def test_every_data_file_matches_a_pattern(package):
    folder = folder_of(package)
    patterns = SETUP["options.package_data"][package].split()
    packaged = {path for pattern in patterns for path in folder.glob(pattern)}
    present = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in present - packaged if path.suffix != ".py"} == set()
