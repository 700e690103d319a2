"""What the fault tests run: a tiny TALL, a text, and the commands that are killed, with their undisturbed results."""

import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import random
import zipfile
from pathlib import Path

import parts
import pyarrow as pa
import pytest
from fault_trials import Job, Runner, Trials
from safetensors import safe_open

from tall_hf import publishing
from tall_hf.training.checkpoints import STATE_NAME, last_checkpoint


SHARD = 8  # sentences
SAVE_STEPS = 4
ASKED_AT_A_TIME = 2
KEPT_TOGETHER = 8 * ASKED_AT_A_TIME  # answers
# Where a trial leaves a line, for the table in docs/guarantees.md.
REPORT = os.environ.get("FAULTS_REPORT")


@pytest.fixture(scope="session")
def runner():
    started = Runner(dict(os.environ))
    yield started
    started.close()


@pytest.fixture(scope="session")
def trials(runner, tmp_path_factory):
    return Trials(runner, tmp_path_factory.mktemp("trials"), REPORT)


@pytest.fixture(scope="session")
def world(tmp_path_factory, composed):
    """A folder with a saved TALL, `tall`, and sentences, `text.txt` and `held_out.txt`."""
    root = tmp_path_factory.mktemp("world")
    model, processor = copy.deepcopy(composed())
    model.encoder.translator.generation_config.max_length = 8  # by itself it would hardly come to an end
    publishing.save(model, processor, root / "tall")
    draw = random.Random(0)
    sentences = list(dict.fromkeys(" ".join(draw.choices(parts.WORDS, k=draw.randint(3, 6))) for _ in range(70)))
    (root / "text.txt").write_text("".join(f"{one}\n" for one in sentences[:40]), "utf-8")
    (root / "held_out.txt").write_text("".join(f"{one}\n" for one in sentences[40:64]), "utf-8")
    return root


# --- what is looked at ------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder, but hidden ones."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def leftovers(folder: Path) -> list[str]:
    """What is hidden in a folder, but locks."""
    return [path.name for path in folder.rglob(".*") if not path.name.endswith(".lock")]


def is_aside(folder: Path, name: str) -> bool:
    """Whether a file lies where no command looks: hidden, or in a checkpoint that no training goes on from."""
    if any(part.startswith(".") for part in Path(name).parts):
        return True
    checkpoints = [path for path in (folder / name).parents if path.name.startswith("checkpoint-")]
    return bool(checkpoints) and not is_taken_up(checkpoints[0])


def is_taken_up(checkpoint: Path) -> bool:
    """Whether a training would go on from a checkpoint, if it were the last."""
    taken = last_checkpoint(checkpoint.parent)
    if taken is None or not (checkpoint / STATE_NAME).is_file():
        return False
    return int(checkpoint.name.split("-")[1]) <= int(Path(taken).name.split("-")[1])


def check_whole(folder: Path, writing: str | None):
    """Whole files alone are where a command looks for them: what was being written is aside, and the rest can be read."""
    assert writing is None or is_aside(folder, writing), f"{writing} is half-written, and would be read"
    for path in folder.rglob("*"):
        if not path.is_file() or is_aside(folder, str(path.relative_to(folder))):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (it is no dict)
                    weights.get_tensor(name)
        elif path.suffix == ".arrow":
            with open(path, "rb") as file:
                pa.ipc.open_stream(file).read_all()
        elif path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), f"{path} is cut off"


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def preparing(world):
    def arguments(folder):
        options = ("--min-words", 2, "--validation-share", 0.2, "--num-beams", 1)
        sizes = ("--batch-size", 4, "--shard-size", SHARD)
        return "prepare", world / "text.txt", "--model", world / "tall", "--output", folder / "data", *options, *sizes

    def results(folder):
        return contents(folder / "data"), leftovers(folder)

    phases = ("cleaning", "tokenising", "putting in place")
    return Job("prepare", phases, arguments, results, "sentences", SHARD, check_whole)


@pytest.fixture(scope="session")
def translating(preparing):
    """The same command, killed while it translates."""
    return dataclasses.replace(preparing, name="translate", phases=("translation",))


@pytest.fixture(scope="session")
def prepared(trials, preparing):
    """What the command makes of the text."""
    return trials.undisturbed(preparing)


@pytest.fixture(scope="session")
def training(world, prepared):
    settings = {
        "max_steps": 12,
        "save_steps": SAVE_STEPS,
        "eval_steps": SAVE_STEPS,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 16,
        "learning_rate": 0.01,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }

    def arguments(folder):
        given = {"model": world / "tall", "dataset": prepared.folder / "data", "output_dir": folder / "out"}
        return "train", *(f"--{name}={value}" for name, value in {**given, **settings}.items()), "--resume"

    def results(folder):
        out = folder / "out"
        history = json.loads((out / STATE_NAME).read_text("utf-8"))["log_history"]
        losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
        kept = {name: metrics[name] for name in ("eval_loss", "steps", "samples")}
        return contents(out / "model"), kept, losses, leftovers(folder)

    # Plots take longer than all the rest, and are left to other tests.
    phases = ("training", "saving")
    return Job("train", phases, arguments, results, "steps", SAVE_STEPS, check_whole, without=("matplotlib",))


@pytest.fixture(scope="session")
def checkpointing(training):
    """The same command, killed while it writes a checkpoint."""
    return dataclasses.replace(training, name="checkpoint", phases=("checkpointing",))


@pytest.fixture(scope="session")
def evaluating(world):
    def arguments(folder):
        options = (
            "--batch-size",
            ASKED_AT_A_TIME,
            "--protocol",
            "clean",
            "--approach",
            "tall",
            "--approach",
            "direct",
        )
        return "evaluate", world / "tall", "--text", world / "held_out.txt", "--output", folder / "out", *options

    def results(folder):
        found = json.loads((folder / "out" / "results.json").read_text("utf-8"))
        return without_costs(found), contents(folder / "out" / "sentences"), leftovers(folder)

    phases = ("evaluation", "report")
    return Job("evaluate", phases, arguments, results, "answers", KEPT_TOGETHER, check_whole, without=("matplotlib",))


@pytest.fixture(scope="session")
def composing(part_folders):
    def arguments(folder):
        chosen = (f"--{role.replace('_', '-')}={path}" for role, path in part_folders().items())
        return "compose", *chosen, "--seed", 1, "--output", folder / "out"

    def results(folder):
        return contents(folder / "out"), leftovers(folder)

    return Job("compose", ("composing", "saving"), arguments, results, "models", 1, check_whole)


def without_costs(value):
    """A JSON value without seconds and bytes."""
    if isinstance(value, dict):
        return {name: without_costs(one) for name, one in value.items() if not name.endswith("cost")}
    return [without_costs(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def publishing_trials(hub, tmp_path_factory):
    """As `trials`, of commands that talk to the test Hub."""
    started = Runner(hub.environment(home=hub.folder / "home"))
    yield Trials(started, tmp_path_factory.mktemp("published"), REPORT)
    started.close()


@pytest.fixture(scope="module")
def publishing_job(world, hub):
    def name(folder):
        return f"{hub.organization}/{folder.name}"

    def arguments(folder):
        return "publish", world / "tall", name(folder), "--language", "he", "--no-verify"

    def forget(folder):
        for path in hub.storage.folder.iterdir():  # or large files would be there from the trial before
            path.unlink()

    def files(folder):
        """A digest of each, with the repository's name, which the card says, taken out of it."""
        repository = hub.repository(name(folder))
        found = {path: repository.read(path) for path in repository.files() if path != ".gitattributes"}
        return {
            path: hashlib.sha256(content.replace(folder.name.encode(), b"NAME")).hexdigest()
            for path, content in found.items()
        }

    def results(folder):
        return files(folder), len(hub.repository(name(folder)).history())

    def check(folder, writing):
        with contextlib.suppress(KeyError):  # it was not made yet
            repository = hub.repository(name(folder))
            # As it was made, or with all the rest: a commit's files come at once.
            assert len(repository.files()) == 1 or "model.safetensors" in repository.files()
        for path in hub.storage.folder.iterdir():
            if "." not in path.name:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    return Job("publish", ("publishing",), arguments, results, "uploads", 1, check, forget)
