"""Locks of folders: a second process is told who holds one, a killed one holds none, and a folder without room is named."""

import multiprocessing
import os
import shutil
import signal
from types import SimpleNamespace

import pytest

from tall_hf.files import full_disk_named, locked, locked_aside


def hold(take, path, held):
    with take(path):
        held.set()
        signal.pause()


@pytest.mark.parametrize("take", [locked, locked_aside])
def test_a_second_process_is_told_the_holder_until_that_is_killed(take, tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold, args=(take, tmp_path / "out", held))
    (tmp_path / "out").mkdir()
    holder.start()
    assert held.wait(120)
    with pytest.raises(BlockingIOError, match=rf"pid {holder.pid}\) is at work in {tmp_path}/out; wait for it"):
        take(tmp_path / "out").__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    for _ in range(2):  # and it is given back
        with take(tmp_path / "out"):
            pass


def test_nothing_is_left_of_the_folder_aside(tmp_path):
    with pytest.raises(KeyError), locked_aside(tmp_path / "new" / "model") as aside:
        assert aside.parent == tmp_path / "new" and aside.name.startswith(".")
        (aside / "half").write_text("half")
        raise KeyError
    assert not list((tmp_path / "new").iterdir())


def test_an_error_where_the_folder_is_not_there_is_told_as_it_is(tmp_path, monkeypatch):
    missing = tmp_path / "new" / "folder"
    with pytest.raises(ValueError, match="the real reason"), full_disk_named(missing, "Free some space."):
        raise ValueError("the real reason")
    # Its disk is that of the folder around it.
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or SimpleNamespace(free=0))
    with pytest.raises(OSError, match="is full .*the real reason"), full_disk_named(missing, "Free some space."):
        raise ValueError("the real reason")
    assert asked == [tmp_path]

    def gone(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "disk_usage", gone)
    with pytest.raises(ValueError, match="the real reason"), full_disk_named(missing, "Free some space."):
        raise ValueError("the real reason")


@pytest.mark.parametrize(("code", "name"), [(28, "No space"), (122, "quota")])
def test_a_disk_without_room_and_a_quota_are_named(tmp_path, code, name):
    message = rf"The disk of {tmp_path} is full .*{name}.*Free some"
    with pytest.raises(OSError, match=message) as caught, full_disk_named(tmp_path, "Free some space."):
        raise OSError(code, os.strerror(code))
    assert caught.value.errno == 28


def test_what_is_said_of_a_full_disk_inside_is_not_said_again(tmp_path):
    message = rf"^\[Errno 28\] The disk of {tmp_path}/shards is full \(.*No space.*\). What is there is kept.$"
    with (
        pytest.raises(OSError, match=message),
        full_disk_named(tmp_path, "Free some space."),
        full_disk_named(tmp_path / "shards", "What is there is kept."),
    ):
        raise OSError(28, os.strerror(28))
