"""How the test Hub's API writes users, repositories, commits and files in JSON."""

import hashlib
import json

from hub.repositories import Blob, Commit, HubError, Repository, User


def user(one: User) -> dict:
    organizations = [{"type": "org", "name": name, "roleInOrg": one.role} for name in one.organizations]
    return {
        "type": "user",
        "id": hashlib.sha1(one.name.encode()).hexdigest()[:24],
        "name": one.name,
        "fullname": one.name.title(),
        "isPro": False,
        "orgs": organizations,
        "auth": {"type": "access_token", "accessToken": {"displayName": "tests", "role": one.role}},
    }


def info(repository: Repository, at: Commit, blobs: bool) -> dict:
    """The page of a model, dataset or space; with `blobs`, also the sizes of its files."""
    card = repository.card(at.oid)
    siblings = [{"rfilename": path} for path in sorted(at.files)]
    if blobs:
        for sibling in siblings:
            blob = at.files[sibling["rfilename"]]
            sibling |= {"size": blob.size, "blobId": blob.oid}
            if blob.lfs:
                sibling["lfs"] = blob.lfs_entry("sha256")
    answer = {
        "id": repository.id,
        "author": repository.namespace,
        "sha": at.oid,
        "createdAt": repository.history(at.oid)[-1].date_string(),
        "lastModified": at.date_string(),
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags", []),
        # YAML has dates, JSON has not.
        "cardData": json.loads(json.dumps(card, default=str)),
        "siblings": siblings,
    }
    answer |= {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    if repository.kind == "space":
        answer["sdk"] = repository.sdk
    return answer


def commit(one: Commit) -> dict:
    return {
        "id": one.oid,
        "title": one.title,
        "message": one.description,
        "authors": [{"user": one.author}],
        "date": one.date_string(),
    }


def refs(repository: Repository) -> dict:
    def named(kind: str, found: dict[str, str]) -> list[dict]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in found.items()]

    return {
        "branches": named("heads", repository.branches),
        "tags": named("tags", repository.tags),
        "converts": [],
        "pullRequests": [],
    }


def tree(at: Commit, folder: str, recursive: bool) -> list[dict]:
    """The files and folders in `folder` ("" for the root), or below it too.

    Raises:
        HubError: there is no such folder.
    """
    start = f"{folder}/" if folder else ""
    inside = sorted(path for path in at.files if path.startswith(start))
    if folder and not inside:
        raise HubError(404, f"{folder} does not exist on {at.oid}", "EntryNotFound", at.oid)
    entries = {}
    for path in inside:
        # Every folder on the way down to the file, and then the file; the first step alone unless recursive.
        steps = path.removeprefix(start).split("/")
        for depth in range(1, len(steps) + 1 if recursive else 2):
            name = start + "/".join(steps[:depth])
            entries[name] = file(path, at.files[path]) if name == path else _directory(name)
    return list(entries.values())


def file(path: str, blob: Blob) -> dict:
    entry = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
    return entry | ({"lfs": blob.lfs_entry("oid")} if blob.lfs else {})


def _directory(path: str) -> dict:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
