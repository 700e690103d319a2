"""Disks without room, of which a quota or nothing is left, and folders that may only be read: named, and gone on with."""

import os
import subprocess

import pytest


# Jobs by the names of their fixtures.
JOBS = ("preparing", "training", "evaluating", "composing")


@pytest.fixture
def disk(tmp_path):
    """`disk(*options)` mounts a disk of memory, or mounts it again with other options; the folder is `disk.folder`."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        again = ["remount"] if folder.is_mount() else []
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*again, *options]), "tall-hf-test", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            unmounted = pytest.fail if os.environ.get("TALL_REQUIRE_DISKS") else pytest.skip
            unmounted(f"No disk can be mounted here: {done.stderr.strip()}")

    mount.folder = folder
    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def one_line(output: str) -> str:
    """What a command said of its error, which is no traceback."""
    assert "Traceback" not in output, output
    [line] = [line for line in output.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_write_without_room_is_named_and_gone_on_after(trials, preparing, prepared, error):
    folder = trials.root / f"prepare-{error}"
    shards = [event for event in prepared.events if "begin" in event and "shards" in event["path"]]
    fault = {"write": shards[4]["begin"], "buffer": 3, "do": error}
    ended, events, output = trials.run(preparing, folder, "full", fault=fault)
    assert ended == {"ended": 1}, output
    line = one_line(output)
    assert str(folder) in line and "free some space" in line and "it goes on where it stopped" in line
    preparing.check(folder, None)
    ended, again, output = trials.run(preparing, folder, "again")
    assert ended == {"ended": 0}, output
    assert preparing.results(folder) == prepared.results


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("name", JOBS)
def test_a_disk_too_small_is_named_and_a_larger_one_gone_on_with(request, trials, disk, name, share):
    job = request.getfixturevalue(name)
    expected = trials.undisturbed(job)
    sizes = [path.stat().st_size for path in expected.folder.rglob("*") if path.is_file()]
    needed = sum(-(-size // 4096) * 4096 for size in sizes)
    disk(f"size={int(needed * share)}")
    folder = disk.folder / "job"
    ended, _, output = trials.run(job, folder, "small")
    assert ended == {"ended": 1}, output
    line = one_line(output)
    assert str(disk.folder) in line and ("space" in line or "room" in line), line
    job.check(folder, None)
    disk("size=100m")
    ended, _, output = trials.run(job, folder, "large")
    assert ended == {"ended": 0}, output
    assert job.results(folder) == expected.results


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", JOBS)
def test_a_folder_that_may_only_be_read_is_named(request, trials, disk, name):
    job = request.getfixturevalue(name)
    disk("size=10m")
    folder = disk.folder / "job"
    (folder / ("data" if name == "preparing" else "out")).mkdir(parents=True)  # so that not making it fails first
    disk("ro")
    ended, _, output = trials.run(job, folder, "read-only")
    assert ended == {"ended": 1}, output
    line = one_line(output)
    assert str(disk.folder) in line and "Read-only file system" in line
