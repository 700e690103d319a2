"""What the test Hub knows: users, repositories, their commits, and the rules for files and cards."""

import hashlib
import io
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import yaml


# As the Hub's own: what goes to LFS whatever its size. Other files do when they are large, or no text.
LFS_PATTERNS = ("*.arrow", "*.bin", "*.gz", "*.model", "*.npy", "*.npz", "*.parquet", "*.pt", "*.safetensors", "*.zip")
LFS_FROM = 10 * 2**20


class HubError(Exception):
    """An answer other than success: HTTP status, message, the `X-Error-Code` by which clients know it, the commit."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None, **body):
        super().__init__(message)
        self.status, self.message, self.code, self.commit, self.body = status, message, code, commit, body


@dataclass(frozen=True)
class User:
    """Who a token belongs to, and whether it may `"write"` or only `"read"`."""

    name: str
    organizations: tuple[str, ...] = ()
    role: str = "write"

    def belongs_to(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.organizations


@dataclass(frozen=True)
class Blob:
    """A file of a commit. `path` is where its content lies; `oid` is git's name of it, for LFS files of the pointer."""

    path: Path
    size: int
    sha256: str
    lfs: bool
    oid: str

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def lfs_entry(self, oid_key: str) -> dict:
        return {oid_key: self.sha256, "size": self.size, "pointerSize": len(lfs_pointer(self.sha256, self.size))}


@dataclass(frozen=True)
class Commit:
    """A state of a repository. `files` maps paths to blobs; the first commit has no parent."""

    oid: str
    parent: str | None
    title: str
    description: str
    author: str
    date: datetime
    files: dict[str, Blob]

    def date_string(self) -> str:
        return self.date.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Repository:
    """A model, dataset or space. Branches and tags map names to commits; a commit once made never changes."""

    kind: str
    id: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def resolve(self, revision: str = "main") -> Commit:
        """The commit that a branch, a tag or a commit's full name stands for."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def blob(self, path: str, revision: str = "main") -> Blob:
        commit = self.resolve(revision)
        if path not in commit.files:
            raise HubError(404, f"Entry not found: {path}", "EntryNotFound", commit.oid)
        return commit.files[path]

    def files(self, revision: str = "main") -> list[str]:
        return sorted(self.resolve(revision).files)

    def read(self, path: str, revision: str = "main") -> bytes:
        return self.blob(path, revision).path.read_bytes()

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that led to `revision`, newest first."""
        commits = [self.resolve(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def card(self, revision: str = "main") -> dict:
        """The metadata of README.md; empty where there is none."""
        if "README.md" not in self.resolve(revision).files:
            return {}
        return front_matter(self.read("README.md", revision).decode("utf-8")) or {}

    def commit(
        self, branch: str, author: str, title: str, description: str, changes: dict[str, Blob | None]
    ) -> Commit:
        """Put one commit on a branch: files added or replaced, or removed where the blob is None."""
        parent = self.branches.get(branch)
        files = dict(self.commits[parent].files) if parent else {}
        for path, blob in changes.items():
            if blob is None:
                files.pop(path)
            else:
                files[path] = blob
        # A random name, as real ones are in effect: two commits never share theirs, whatever they hold.
        oid = secrets.token_hex(20)
        self.commits[oid] = Commit(oid, parent, title, description, author, datetime.now(UTC), files)
        self.branches[branch] = oid
        return self.commits[oid]


def upload_mode(path: str, size: int, sample: bytes) -> str:
    """`"lfs"` or `"regular"`, from a file's path, size in bytes and first bytes."""
    large = any(PurePosixPath(path).match(pattern) for pattern in LFS_PATTERNS) or size > LFS_FROM
    return "lfs" if large or b"\0" in sample else "regular"


def front_matter(readme: str) -> dict | None:
    """The YAML mapping between the two `---` that a card starts with; None where there is none.

    Raises:
        ValueError: it is no mapping.
    """
    lines = io.StringIO(readme)
    if lines.readline().strip() != "---":
        return None
    block = []
    for line in lines:
        if line.strip() == "---":
            break
        block.append(line)
    try:
        metadata = yaml.safe_load("".join(block))
    except yaml.YAMLError as error:
        raise ValueError(f"Invalid YAML: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError("The metadata of a card must be a mapping.")
    return metadata


def card_errors(readme: str) -> list[str]:
    """What the Hub would refuse in a card's metadata; of its rules, those on the fields that TALL's cards have."""
    try:
        metadata = front_matter(readme) or {}
    except ValueError as error:
        return [str(error)]
    errors = []
    for key in ("language", "tags", "datasets", "base_model", "metrics"):
        value = metadata.get(key, [])
        if not (isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))):
            errors.append(f'"{key}" must be a string or a list of strings')
    for key in ("pipeline_tag", "library_name", "license", "license_name", "license_link"):
        if not isinstance(metadata.get(key, ""), str | list):
            errors.append(f'"{key}" must be a string')
    models = metadata.get("model-index", [])
    if not isinstance(models, list):
        return [*errors, '"model-index" must be an array']
    for i, model in enumerate(models):
        if not model.get("name"):
            errors.append(f'"model-index[{i}].name" is required')
        for j, result in enumerate(model.get("results", [])):
            where = f"model-index[{i}].results[{j}]"
            required = {"task": ["type"], "dataset": ["type", "name"]}
            errors += [
                f'"{where}.{key}.{name}" is required'
                for key, names in required.items()
                for name in names
                if not result.get(key, {}).get(name)
            ]
            for k, metric in enumerate(result.get("metrics") or [{}]):
                errors += [
                    f'"{where}.metrics[{k}].{name}" is required' for name in ("type", "value") if name not in metric
                ]
    return errors


def git_oid(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
