"""The package as installed: setup.cfg lists every folder of the tree, every data file and every library imported."""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version


ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PACKAGE_DIR = dict(
    (part.strip() for part in line.split("=")) for line in SETUP["options"]["package_dir"].split("\n") if line
)
PACKAGES = SETUP["options"]["packages"].split()
# Those that have walls between them.
ROOMS = {"data", "training", "evaluation", "classification", "publishing", "cards", "sweep", "microworld", "cli"}


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


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def imported_names(source: str, package: str) -> set[str]:
    """What a module in a package imports of ours, wherever it does, as dotted names such as "tall_hf.data.words.normalize"."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*around, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("tall_hf.")}


def imported_of_us(path: Path) -> set[str]:
    """The same of a file below src/tall_hf."""
    package = ".".join(("tall_hf", *path.parent.relative_to(folder_of("tall_hf")).parts))
    return imported_names(path.read_text(encoding="utf-8"), package)


def test_every_imported_library_is_declared():
    requirements = SETUP["options"]["install_requires"] + "".join(
        SETUP["options.extras_require"][extra] for extra in ("ct2", "train", "eval", "space")
    )
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("-", "_") for line in requirements.split("\n") if line}
    distributions = packages_distributions()
    for folder in PACKAGE_DIR.values():
        for path in (ROOT / folder).rglob("*.py"):
            # A Space's app.py imports the files beside it by their bare names.
            beside = (
                set() if (path.parent / "__init__.py").exists() else {one.stem for one in path.parent.glob("*.py")}
            )
            for name in imported(path) - sys.stdlib_module_names - {"tall_hf"} - beside:
                # A library that is not installed is taken to be called as its module is.
                owners = {owner.lower().replace("-", "_") for owner in distributions.get(name, [name])}
                assert owners & declared, f"{path.relative_to(ROOT)} imports {name}, which setup.cfg does not declare"


@pytest.mark.parametrize(
    ("room", "beyond"),
    [
        ("data", {"training", "evaluation", "classification", "publishing", "cards", "sweep"}),
        ("training", {"evaluation", "classification", "publishing", "cards", "sweep"}),
        ("evaluation", {"classification", "publishing", "cards", "sweep"}),
        ("classification", {"training", "evaluation", "publishing", "cards", "sweep"}),
        ("publishing", {"evaluation", "classification", "cards", "sweep"}),
        ("cards", {"publishing", "sweep"}),
        ("sweep", {"evaluation", "classification", "publishing", "cards"}),
        # What belongs to no room, and so knows none.
        *(
            (neutral, ROOMS)
            for neutral in ("measuring", "files.py", "fingerprints.py", "progress.py", "yaml_files.py")
        ),
    ],
)
def test_rooms_know_nothing_beyond_their_walls(room, beyond):
    inside = folder_of("tall_hf") / room
    for path in inside.rglob("*.py") if inside.is_dir() else [inside]:
        for name in imported_of_us(path):
            assert name.split(".")[1] not in beyond, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("room", "taken"),
    [
        # What an evaluation kept, which a card counts again; statistics, tables and the like are in `measuring`.
        ("evaluation", {"approach.Question", "report.RESULTS_NAME", "run.kept_answers", "scoring.score"}),
        ("classification", {"report.RESULTS_NAME", "scores.label_scores"}),
    ],
)
def test_cards_take_from_an_evaluation_what_they_count_again_and_nothing_else(room, taken):
    found = {name for path in (folder_of("tall_hf") / "cards").rglob("*.py") for name in imported_of_us(path)}
    assert {name for name in found if name.split(".")[1] == room} == {f"tall_hf.{room}.{name}" for name in taken}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import tall_hf.evaluation.run", {"tall_hf.evaluation.run"}),
        ("from tall_hf import evaluation, hub_cards", {"tall_hf.evaluation", "tall_hf.hub_cards"}),
        ("from tall_hf.evaluation.run import Run as R", {"tall_hf.evaluation.run.Run"}),
        ("from ..evaluation import score", {"tall_hf.evaluation.score"}),
        ("from .. import evaluation", {"tall_hf.evaluation"}),
        ("from .grid import Grid", {"tall_hf.sweep.grid.Grid"}),
        ("def late():\n    from ..evaluation.run import Run", {"tall_hf.evaluation.run.Run"}),
        ("import numpy\nfrom tallies import one", set()),
    ],
)
def test_no_way_of_importing_is_overlooked(line, names):
    assert imported_names(line, "tall_hf.sweep") == names


def requirements() -> dict[str, SpecifierSet]:
    """The ranges of versions in setup.cfg, of the package and of its extras, by name."""
    lines = SETUP["options"]["install_requires"] + "".join(SETUP["options.extras_require"].values())
    found = {}
    for line in filter(None, lines.split("\n")):
        requirement = Requirement(line)
        if requirement.name != "tall-hf":
            found[requirement.name] = found.get(requirement.name, SpecifierSet()) & requirement.specifier
    return found


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_pinned_versions_are_those_that_setup_cfg_allows():
    ranges, pinned = requirements(), pins("constraints.txt")
    assert ranges.keys() == pinned.keys()
    assert [name for name, version in pinned.items() if version not in ranges[name]] == []


def test_the_floor_is_the_lowest_that_setup_cfg_allows():
    lowest = {
        name: {part.version for part in allowed if part.operator == ">="} for name, allowed in requirements().items()
    }
    floor = pins("constraints-floor.txt")
    assert floor.pop("torch") == pins("constraints.txt")["torch"]  # see the job `torch-floor` of ci.yml
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    [tested] = re.findall(r"/torch==([\d.]+)/", workflow)
    assert {Version(tested)} == set(map(Version, lowest.pop("torch")))
    assert {name: {Version(version)} for name, version in floor.items()} == {
        name: set(map(Version, versions)) for name, versions in lowest.items()
    }


def test_test_files_have_names_of_their_own():
    """Test folders are no packages, so pytest imports two files of one name only if they are run apart, as peer/ is."""
    paths = (ROOT / "tests").rglob("*.py")
    names = [path.name for path in paths if path.name != "conftest.py" and path.parent.name != "peer"]
    assert sorted(set(names)) == sorted(names)
