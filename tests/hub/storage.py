"""The test Hub's storage of file contents: an origin of its own, which large files go to and come from directly.

It knows no users: an address is good for one file and one method, because the API signed it.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from hub.repositories import Blob, HubError, git_oid, lfs_pointer
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response


class Storage:
    """Contents by their sha256, in one folder. `url` is the origin's address."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self._key = secrets.token_bytes(16)
        folder.mkdir(parents=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def blob(self, content: bytes) -> Blob:
        """Keep a regular file."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.path(sha256).write_bytes(content)
        return Blob(self.path(sha256), len(content), sha256, lfs=False, oid=git_oid(content))

    def lfs_blob(self, sha256: str) -> Blob:
        """A large file whose content was uploaded before."""
        path = self.path(sha256)
        if not path.is_file():
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = path.stat().st_size
        return Blob(path, size, sha256, lfs=True, oid=git_oid(lfs_pointer(sha256, size)))

    def signed(self, method: str, sha256: str) -> str:
        """The address at which one content can be read ("GET") or written ("PUT")."""
        return f"{self.url}/{sha256}?signature={self._signature(method, sha256)}"

    def _signature(self, method: str, sha256: str) -> str:
        return hmac.new(self._key, f"{method} {sha256}".encode(), "sha256").hexdigest()

    def _check_signature(self, request: Request) -> str:
        # As S3 does; and a client that sends its token to another origin leaks it.
        if "authorization" in request.headers:
            raise HubError(400, "Only one auth mechanism allowed: the address is signed, and a token came with it.")
        sha256 = request.path_params["sha256"]
        method = "GET" if request.method == "HEAD" else request.method
        if request.query_params.get("signature") != self._signature(method, sha256):
            raise HubError(403, "The signature does not match.")
        return sha256

    async def download(self, request: Request) -> Response:
        sha256 = self._check_signature(request)
        return FileResponse(self.path(sha256), headers={"ETag": f'"{sha256}"'})

    async def upload(self, request: Request) -> Response:
        sha256 = self._check_signature(request)
        aside = self.folder / f"{sha256}.{secrets.token_hex(4)}"
        try:
            digest = hashlib.sha256()
            with aside.open("wb") as file:
                async for chunk in request.stream():
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise HubError(400, f"The content is not that of {sha256}.")
            aside.rename(self.path(sha256))
        except ClientDisconnect as error:
            raise HubError(400, "The client went away.") from error
        finally:
            aside.unlink(missing_ok=True)
        return Response("OK", headers={"ETag": f'"{sha256}"'})
