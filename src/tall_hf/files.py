"""What every command that writes files does alike: whole ones only, nobody else at it, and a full disk named."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout


LOCK_NAME = ".lock"
# What an unfinished file's name ends in; a killed process leaves one behind, which nobody reads.
_UNFINISHED = ".unfinished"
# Likewise of a folder in which another one is made.
_ASIDE = ".saving"
# What a disk without room says, and a user whose share of it is used up.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# A write that failed for want of room leaves less than this behind.
_FULL = 2**20
_PLAIN_NAME = re.compile(r"\w[\w.+-]*")


def is_plain_name(name: str) -> bool:
    """Whether a user's name may be that of a file: letters, digits, '_', and behind the first of them also '.', '+', '-'."""
    return _PLAIN_NAME.fullmatch(name) is not None


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep a second command out of a folder; a killed process holds no lock.

    Raises:
        BlockingIOError: another process is at work there.
        OSError: the folder cannot be written to.
    """
    with _held(Path(folder, LOCK_NAME), folder):
        yield


@contextlib.contextmanager
def locked_aside(folder: str | os.PathLike) -> Iterator[Path]:
    """A hidden folder to make another one in, which is beside it; one process has it at a time, and it is removed after.

    What a killed process has left in it is found there by the next one.

    Raises:
        BlockingIOError: another process is making that folder.
        OSError: the folder around cannot be made or written to.
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}{_ASIDE}")
    with _held(aside / LOCK_NAME, folder):
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Where to stage a folder that takes the place of `folder` when it is whole; after an error that one is what it was.

    Raises:
        BlockingIOError: another process is making that folder.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    with locked_aside(folder) as aside:
        staging, old = aside / "new", aside / "old"
        # Of a process that was killed, perhaps between the two renames below.
        if old.is_dir() and not folder.exists():
            old.rename(folder)
        for left in (staging, old):
            shutil.rmtree(left, ignore_errors=True)
        yield staging
        try:
            if folder.exists():
                folder.rename(old)
            staging.rename(folder)
        except BaseException:  # an interrupt too: what lies aside is removed next
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise


@contextlib.contextmanager
def _held(path: Path, folder: str | os.PathLike) -> Iterator[None]:
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        pid = _opened_by(path)
        who = "Another process" if pid is None else f"Another process (pid {pid})"
        raise BlockingIOError(f"{who} is at work in {folder}; wait for it, or name another folder.") from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} cannot be written to ({error}). Name another folder, or make room or the right to write there.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _opened_by(path: Path) -> int | None:
    """The id of the process that has a file open, of several the oldest, which started the others; None if it is not seen."""
    path, found = os.path.realpath(path), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or is another user's
            if any(file.path == path for file in process.open_files()):
                found.append((process.create_time(), process.pid))
    return min(found)[1] if found else None


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write a file that appears at `path` when all of it is on the disk; after an error nothing of it remains.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        yield aside
        with open(aside, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Put the original back, or run what wrote it again.") from error


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what processes that were killed in `atomic_write` left behind, in the folder and below it."""
    for left in Path(folder).rglob(f".*{_UNFINISHED}"):
        left.unlink()


class FullDiskError(OSError):
    """A disk without room, named, with what to do about it."""


@contextlib.contextmanager
def full_disk_named(
    folder: str | os.PathLike, advice: str = "Free some space, then run the same command again."
) -> Iterator[None]:
    """Within, a failure on a full disk becomes an OSError that says so; torch and safetensors raise errors of their own.

    Args:
        folder: where is written.
        advice: what to do about it.

    Raises:
        FullDiskError: the disk is full; one that was raised inside, and knows more, is passed on.
    """
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in _NO_ROOM and not _is_full(folder):
            raise
        raise FullDiskError(errno.ENOSPC, f"The disk of {folder} is full ({error}). {advice}") from error


def _is_full(folder):
    """Whether the disk of a folder is, which need not be there yet; False where that cannot be seen."""
    folder = Path(folder).absolute()
    with contextlib.suppress(OSError):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(there).free < _FULL
    return False
