"""The Hub's HTTP API over loopback, for the real huggingface_hub and transformers clients to talk to.

Two ports, as the Hub has two origins: the API, and the storage that holds large files behind signed addresses.
`serve` starts it. Written after the requests that huggingface_hub 2.4 makes and the answers it reads.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import socket
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
from hub import answers
from hub.repositories import HubError, Repository, User, card_errors, front_matter, upload_mode
from hub.storage import Storage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route


class Hub:
    """What tests hold: where the Hub is, who may do what there, what it was asked, and what it keeps.

    Attributes:
        endpoint: address of the API, for `HF_ENDPOINT`; `storage.url` is the other origin.
        user, organization, token: a user, an organization of theirs, and their token, which may write to both.
        requests: how often each `"METHOD route"` was asked for; HEAD counts apart. The names stand in `routes`.
        unknown: what it was asked and does not know, which is empty unless a client asks for more than `routes` has.
        repositories: by `(kind, id)`; `repository(id)` finds one.
        env: environment of a child process that talks to this Hub, with an empty cache of its own.
    """

    user, organization = "dana", "tall-tests"

    def __init__(self, folder: Path, endpoint: str, storage: str):
        self.folder, self.endpoint = folder, endpoint
        self.storage = Storage(folder / "storage", storage)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.users: dict[str, User] = {}
        self.requests: Counter[str] = Counter()
        self.unknown: list[str] = []
        self.token = self.add_user(self.user, (self.organization,))
        self.env = self.environment()
        self._failing: dict[str, tuple[int, int]] = {}

    # What tests call

    def add_user(self, name: str, organizations: tuple[str, ...] = (), role: str = "write") -> str:
        """A new token of the user `name`; `role` is "write" or "read"."""
        token = f"hf_{secrets.token_hex(17)}"
        self.users[token] = User(name, organizations, role)
        return token

    def repository(self, repo_id: str, kind: str = "model") -> Repository:
        return self.repositories[kind, repo_id]

    def environment(self, token: str | bool = True, home: Path | None = None) -> dict[str, str]:
        """Environment of a child process: its token, this Hub's own (True) or none (False), and its HF_HOME.

        Without `home` it is a new folder, so that the child's cache is empty.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
        if token:
            environment["HF_TOKEN"] = self.token if token is True else token
        return environment | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home or self.folder / f"home-{secrets.token_hex(4)}"),
            "HF_HUB_DISABLE_XET": "1",  # it has a protocol of its own; without it the client uploads by LFS
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @contextlib.contextmanager
    def failing(self, request: str, status: int = 403, skip: int = 0):
        """Answer `request`, such as "PUT upload", with an error after the first `skip`. 5xx and 429 are tried again."""
        self._failing[request] = (skip, status)
        try:
            yield
        finally:
            del self._failing[request]

    # Who asks, and for what

    def _asker(self, request: Request) -> User | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        if header.removeprefix("Bearer ") not in self.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.users[header.removeprefix("Bearer ")]

    def _repository(self, request: Request, write: bool = False) -> Repository:
        """The repository that a path names, if who asks may see it, or write to it."""
        asker = self._asker(request)
        repo_id = f"{request.path_params['namespace']}/{request.path_params['name']}"
        repository = self.repositories.get((request.path_params.get("kind", "model").removesuffix("s"), repo_id))
        if repository is None or (repository.private and not (asker and asker.belongs_to(repository.namespace))):
            # One answer for both, so that nobody learns which private names exist.
            raise HubError(404 if asker else 401, "Repository not found", "RepoNotFound")
        if write:
            self._check_may_write(asker, repository.namespace)
        return repository

    def _check_may_write(self, asker: User | None, namespace: str) -> None:
        if asker is None:
            raise HubError(401, "Invalid username or password.")
        if not asker.belongs_to(namespace):
            raise HubError(403, f'You don\'t have the rights to create or change a repository of "{namespace}"')
        if asker.role != "write":
            raise HubError(403, "You must use a write token to upload to a repository.")

    # Accounts and repositories

    async def _whoami(self, request: Request) -> Response:
        asker = self._asker(request)
        if asker is None:
            raise HubError(401, "Invalid username or password.")
        return JSONResponse(answers.user(asker))

    async def _agent_harnesses(self, request: Request) -> Response:
        # The client asks once a day, to name in its User-Agent the tool that runs it.
        return JSONResponse({"standardEnvVars": [], "harnesses": {}})

    async def _validate_yaml(self, request: Request) -> Response:
        content = (await request.json())["content"]
        errors = card_errors(content)
        empty = not errors and not front_matter(content)
        answer = {
            "errors": [{"message": message} for message in errors],
            "warnings": [{"message": "empty or missing yaml metadata in repo card"}] if empty else [],
        }
        return JSONResponse(answer, 400 if errors else 200)

    async def _create(self, request: Request) -> Response:
        asker, wanted = self._asker(request), await request.json()
        namespace = wanted.get("organization") or (asker and asker.name)
        self._check_may_write(asker, namespace)
        kind, repo_id = wanted.get("type", "model"), f"{namespace}/{wanted['name']}"
        url = f"{self.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        if (kind, repo_id) in self.repositories:
            raise HubError(409, f"You already created this {kind} repo", url=url)
        private = wanted.get("private") or wanted.get("visibility") == "private"
        repository = self.repositories[kind, repo_id] = Repository(kind, repo_id, bool(private), wanted.get("sdk"))
        attributes = self.storage.blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        repository.commit("main", asker.name, "initial commit", "", {".gitattributes": attributes})
        return JSONResponse({"url": url, "name": repo_id, "id": repo_id})

    async def _delete(self, request: Request) -> Response:
        asker, wanted = self._asker(request), await request.json()
        namespace = wanted.get("organization") or (asker and asker.name)
        self._check_may_write(asker, namespace)
        if self.repositories.pop((wanted.get("type", "model"), f"{namespace}/{wanted['name']}"), None) is None:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return Response("OK")

    async def _settings(self, request: Request) -> Response:
        repository, wanted = self._repository(request, write=True), await request.json()
        repository.private = wanted["visibility"] == "private"
        return JSONResponse(wanted)

    async def _auth_check(self, request: Request) -> Response:
        self._repository(request, write=request.url.path.endswith("/write"))
        return Response("OK")

    # Reading

    async def _info(self, request: Request) -> Response:
        repository = self._repository(request)
        commit = repository.resolve(request.path_params.get("revision", "main"))
        return JSONResponse(answers.info(repository, commit, blobs="blobs" in request.query_params))

    async def _tree(self, request: Request) -> Response:
        commit = self._repository(request).resolve(request.path_params["revision"])
        folder = request.path_params.get("path", "").strip("/")
        recursive = request.query_params.get("recursive", "").lower() == "true"
        return JSONResponse(answers.tree(commit, folder, recursive))

    async def _paths_info(self, request: Request) -> Response:
        commit = self._repository(request).resolve(request.path_params["revision"])
        wanted = parse_qs((await request.body()).decode())["paths"]
        return JSONResponse([answers.file(path, commit.files[path]) for path in wanted if path in commit.files])

    async def _commits(self, request: Request) -> Response:
        history = self._repository(request).history(request.path_params["revision"])
        return JSONResponse([answers.commit(one) for one in history])

    async def _refs(self, request: Request) -> Response:
        return JSONResponse(answers.refs(self._repository(request)))

    async def _resolve(self, request: Request) -> Response:
        repository = self._repository(request)
        commit = repository.resolve(request.path_params["revision"])
        blob = repository.blob(request.path_params["path"], commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"'}
        if not blob.lfs:
            return FileResponse(blob.path, headers=headers)
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(blob.size)}
        return RedirectResponse(self.storage.signed("GET", blob.sha256), 302, headers)

    # Writing

    async def _preupload(self, request: Request) -> Response:
        repository, files = self._repository(request, write=True), (await request.json())["files"]
        present = repository.resolve(request.path_params["revision"]).files
        for file in files:
            file["uploadMode"] = upload_mode(file["path"], file["size"], base64.b64decode(file.pop("sample")))
            file["shouldIgnore"] = False
            file["oid"] = present[file["path"]].etag if file["path"] in present else None
        return JSONResponse({"files": files})

    async def _lfs_batch(self, request: Request) -> Response:
        self._repository(request, write=True)
        objects = (await request.json())["objects"]
        verify = str(request.url).replace("/objects/batch", "/verify")
        for one in objects:
            # No actions: the content is here already.
            if not self.storage.path(one["oid"]).is_file():
                one["actions"] = {
                    "upload": {"href": self.storage.signed("PUT", one["oid"])},
                    "verify": {"href": verify},
                }
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def _lfs_verify(self, request: Request) -> Response:
        self._repository(request, write=True)
        wanted = await request.json()
        if self.storage.lfs_blob(wanted["oid"]).size != wanted["size"]:
            raise HubError(400, f"Size of {wanted['oid']} is not {wanted['size']}")
        return JSONResponse({"message": "Verified"})

    async def _commit(self, request: Request) -> Response:
        repository, asker = self._repository(request, write=True), self._asker(request)
        branch = request.path_params["revision"]
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        parent = repository.resolve(branch)
        header, changes = None, {}
        for line in (await request.body()).splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                header = value
            elif key == "file":
                content = base64.b64decode(value["content"])
                if value["path"] == "README.md" and (errors := card_errors(content.decode("utf-8"))):
                    raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
                changes[value["path"]] = self.storage.blob(content)
            elif key == "lfsFile":
                changes[value["path"]] = self.storage.lfs_blob(value["oid"])
            elif key in ("deletedFile", "deletedFolder"):
                gone = [
                    path
                    for path in parent.files
                    if path == value["path"] or (key == "deletedFolder" and path.startswith(f"{value['path']}/"))
                ]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")
                changes |= dict.fromkeys(gone)
            else:
                raise HubError(400, f"Unknown operation: {key}")
        if header.get("parentCommit", parent.oid) != parent.oid:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        # Nothing of the repository has changed until here, and this is one step.
        made = repository.commit(branch, asker.name, header["summary"], header["description"], changes)
        prefix = "" if repository.kind == "model" else repository.kind + "s/"
        url = f"{self.endpoint}/{prefix}{repository.id}/commit/{made.oid}"
        return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url})

    async def _tag(self, request: Request) -> Response:
        repository, wanted = self._repository(request, write=True), await request.json()
        if wanted["tag"] in repository.tags:
            raise HubError(409, f"Tag {wanted['tag']} already exists")
        repository.tags[wanted["tag"]] = repository.resolve(request.path_params["revision"]).oid
        return Response("OK")

    async def _branch(self, request: Request) -> Response:
        repository, wanted = self._repository(request, write=True), await request.json()
        branch = request.path_params["revision"]
        if branch in repository.branches:
            raise HubError(409, f"Branch {branch} already exists")
        repository.branches[branch] = repository.resolve(wanted.get("startingPoint", "main")).oid
        return Response("OK")

    async def _unknown(self, request: Request) -> Response:
        self.unknown.append(f"{request.method} {request.url.path}")
        raise HubError(404, f"The test Hub knows no {request.method} {request.url.path}")

    # Routing

    def _route(self, request: str, path: str, endpoint) -> Route:
        method, name = request.split(" ")

        async def answer(asked: Request) -> Response:
            request = f"{asked.method} {name}"  # a GET route answers HEAD too
            self.requests[request] += 1
            if request in self._failing:
                skip, status = self._failing[request]
                self._failing[request] = (skip - 1, status)
                if skip <= 0:
                    raise HubError(status, "This request was made to fail.")
            return await endpoint(asked)

        return Route(path, answer, methods=[method])

    def routes(self) -> list[Route]:
        """Of the API. What it does not know is refused, and noted in `unknown`."""
        api = "/api/{kind}/{namespace}/{name}"
        routes = [
            ("GET whoami", "/api/whoami-v2", self._whoami),
            ("GET agent-harnesses", "/api/agent-harnesses", self._agent_harnesses),
            ("POST validate-yaml", "/api/validate-yaml", self._validate_yaml),
            ("POST create", "/api/repos/create", self._create),
            ("DELETE delete", "/api/repos/delete", self._delete),
            ("GET info", api, self._info),
            ("GET info", api + "/revision/{revision}", self._info),
            ("GET auth-check", api + "/auth-check", self._auth_check),
            ("GET auth-check", api + "/auth-check/write", self._auth_check),
            ("PUT settings", api + "/settings", self._settings),
            ("GET tree", api + "/tree/{revision}", self._tree),
            ("GET tree", api + "/tree/{revision}/{path:path}", self._tree),
            ("POST paths-info", api + "/paths-info/{revision}", self._paths_info),
            ("GET commits", api + "/commits/{revision}", self._commits),
            ("GET refs", api + "/refs", self._refs),
            ("POST tag", api + "/tag/{revision}", self._tag),
            ("POST branch", api + "/branch/{revision}", self._branch),
            ("POST preupload", api + "/preupload/{revision}", self._preupload),
            ("POST commit", api + "/commit/{revision}", self._commit),
        ]
        # The addresses of models have no kind in front.
        for page in ("/{namespace}/{name}", "/{kind}/{namespace}/{name}"):
            routes += [
                ("POST lfs-batch", page + ".git/info/lfs/objects/batch", self._lfs_batch),
                ("POST lfs-verify", page + ".git/info/lfs/verify", self._lfs_verify),
                ("GET resolve", page + "/resolve/{revision}/{path:path}", self._resolve),
            ]
        routes += [(f"{method} unknown", "/{path:path}", self._unknown) for method in ("GET", "POST", "PUT", "DELETE")]
        return [self._route(*route) for route in routes]

    def storage_routes(self) -> list[Route]:
        """Of the other origin."""
        return [
            self._route("GET download", "/{sha256}", self.storage.download),
            self._route("PUT upload", "/{sha256}", self.storage.upload),
        ]


async def _error(request: Request, error: HubError) -> Response:
    # A header is one line.
    headers = {
        "X-Error-Message": error.message.partition("\n")[0],
        "X-Error-Code": error.code,
        "X-Repo-Commit": error.commit,
    }
    sent = {name: value for name, value in headers.items() if value is not None}
    return JSONResponse({"error": error.message, **error.body}, error.status, sent)


@contextlib.contextmanager
def serve(folder: Path):
    """A Hub that answers on two free ports of this machine, and keeps its files in `folder`, while the block runs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    api, storage = (one.getsockname()[1] for one in sockets)
    # Two names: huggingface_hub 1.31 takes another port of the same host for the Hub, and asks storage what only that knows.
    hub = Hub(folder, f"http://127.0.0.1:{api}", f"http://localhost:{storage}")
    servers = []
    for routes in (hub.routes(), hub.storage_routes()):
        app = Starlette(routes=routes, exception_handlers={HubError: _error})
        servers.append(
            uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        )

    async def run():
        # Both in one thread: no two requests change the Hub at once.
        await asyncio.gather(*(one.serve(sockets=[bound]) for one, bound in zip(servers, sockets, strict=True)))

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    try:
        # The sockets listen already, so that a request made before the servers are up waits for them.
        yield hub
    finally:
        for one in servers:
            one.should_exit = True
        thread.join(timeout=10)
