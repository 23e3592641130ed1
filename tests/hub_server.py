"""A small model hub on 127.0.0.1 that serves folders to the real hub client.

It answers the routes that ``huggingface_hub`` and ``datasets`` ask for, with the headers that they read::

    GET        /api/models/{id}[/revision/{rev}]         the commit and the list of files
    GET        /api/models/{id}/tree/{rev}[/{path}]      files and folders with their sizes
    POST       /api/models/{id}/paths-info/{rev}         the same for named paths
    GET        /api/models/{id}/discussions              pull requests
    HEAD, GET  /{id}/resolve/{rev}/{path}                one file
    HEAD, GET  /web/{any}                                a page, as from a server that is no hub

Data sets have the same routes under ``/api/datasets/`` and ``/datasets/``. A folder is read at each request
and its commit is the hash of its content, so that changing a file makes a new commit of ``main``. Weights are
redirected to another host name, as the public hub does.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|discussions))?(/.*)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Hub:
    """What the server serves, what it was asked, and how it misbehaves.

    ``folders`` has model ids and ``datasets/``-prefixed data set ids as keys. ``asked`` lists the requests,
    such as ``"GET /acme/toy/resolve/main/config.json"``. A repository in ``gated`` gives files only to who
    sends that token. A file in ``cut`` breaks off half-way, once; one in ``down`` is refused with status 500.
    ``offers`` maps a repository to the number of a pull request by the conversion bot.
    """

    folders: dict[str, Path]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    gated: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    offers: dict[str, int] = field(default_factory=dict)

    def files(self, key: str) -> dict[str, bytes]:
        """Return the content of every file of a repository under its path in it."""
        folder = self.folders[key]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def commit(self, key: str) -> str:
        """Return the commit that ``main`` of a repository is at."""
        digest = hashlib.sha1()
        for name, content in self.files(key).items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def gets(self, ending: str = "") -> list[str]:
        """Return the paths of the files that were sent, those that end so."""
        found = (line.split(" ", 1) for line in self.asked if "/resolve/" in line)
        return [path for verb, path in found if verb == "GET" and path.endswith(ending)]


@contextmanager
def serve(folders: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve ``folders`` (repository id -> folder) while the block runs; ``hub.url`` is the endpoint."""
    hub = Hub(dict(folders))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub  # type: ignore[attr-defined]
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(code or message)


class _Handler(BaseHTTPRequestHandler):
    @property
    def hub(self) -> Hub:
        return cast(Hub, self.server.hub)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = address.path
        self.hub.asked.append(f"{self.command} {unquote(path)}")
        try:
            if match := _API.fullmatch(path):
                kind, repo, route, rest = match.groups()
                self._api(kind, unquote(repo), route, rest or "", parse_qs(address.query))
            elif match := _FILE.fullmatch(path):
                prefix, repo, revision, name = match.groups()
                self._file((prefix or "") + unquote(repo), unquote(revision), unquote(name))
            elif path.startswith("/cdn/"):
                key, name = unquote(path.removeprefix("/cdn/")).split("|")
                self._send_file(key, name, {})
            elif path.startswith("/web/"):
                self._send(200, b"<html></html>", {})
            else:
                raise _Refused(404, message="no such route")
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, b"", {name: text for name, text in headers.items() if text})

    def _api(self, kind: str, repo: str, route: str | None, rest: str, query: dict[str, list[str]]) -> None:
        key = repo if kind == "models" else f"datasets/{repo}"
        revision, _, inner = rest.removeprefix("/").partition("/")
        commit = self._commit(key, unquote(revision) or "main")
        entries = _tree(self.hub.files(key))
        if route == "discussions":
            self._json({"count": len(self.hub.offers), "start": 0, "discussions": self._offers(repo)})
        elif route == "tree":
            inside, deep = unquote(inner), query.get("recursive", ["false"])[0].lower() == "true"
            below = [e for p, e in entries.items() if not inside or p.startswith(f"{inside}/")]
            if inside and not below:
                raise _Refused(404, "EntryNotFound")
            depth = inside.count("/") + 1 if inside else 0
            self._json([entry for entry in below if deep or entry["path"].count("/") == depth])
        elif route == "paths-info":
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._json([entries[path] for path in form.get("paths", []) if path in entries])
        else:
            files = [entry for entry in entries.values() if entry["type"] == "file"]
            siblings = [{"rfilename": e["path"], "size": e["size"], "blobId": e["oid"]} for e in files]
            names = siblings if "blobs" in query else [{"rfilename": e["path"]} for e in files]
            self._json({"id": repo, "sha": commit, "siblings": names, "tags": [], "private": False})

    def _offers(self, repo: str) -> list[dict[str, Any]]:
        number = self.hub.offers.get(repo)
        offer = {
            "num": number,
            "title": "Adding `safetensors` variant of this model",
            "status": "open",
            "isPullRequest": True,
            "author": {"name": "SFconvertbot"},
            "createdAt": "2024-01-01T00:00:00.000Z",
            "repo": {"name": repo, "type": "model"},
        }
        return [] if number is None else [offer]

    def _commit(self, key: str, revision: str) -> str:
        if key not in self.hub.folders:
            raise _Refused(404, "RepoNotFound", "Repository not found")
        commit = self.hub.commit(key)
        if revision not in ("main", commit):
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _file(self, key: str, revision: str, name: str) -> None:
        commit = self._commit(key, revision)
        if wanted := self.hub.gated.get(key):
            sent = self.headers.get("Authorization")
            if sent is None:
                raise _Refused(401, "GatedRepo", "Access to this model is restricted")
            if sent != f"Bearer {wanted}":
                raise _Refused(401, message="Invalid credentials in Authorization header")
        content = self.hub.files(key).get(name)
        if content is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"'}
        if name.endswith(".safetensors"):
            port = self.hub.url.rpartition(":")[2]
            linked = {
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
            there = {"Location": f"http://localhost:{port}/cdn/{quote(f'{key}|{name}')}"}
            self._send(302, b"", headers | linked | there)
        else:
            self._send_file(key, name, headers)

    def _send_file(self, key: str, name: str, headers: dict[str, str]) -> None:
        content, status, sent = self.hub.files(key)[name], 200, self.headers.get("Range")
        if sent is not None and self.command == "GET":
            first, _, last = sent.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(content), len(content))
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
            content, status = content[start:end], 206
        if self.command == "GET" and name in self.hub.cut:
            self.hub.cut.remove(name)
            self._send(status, content, headers, cut=len(content) // 2)
        elif self.command == "GET" and name in self.hub.down:
            raise _Refused(500, message="out of order")
        else:
            self._send(status, content, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(len(content)), "Accept-Ranges": "bytes"}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return the hub's entry for each file, and for each folder that holds one."""
    entries: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        for parent in reversed(Path(name).parents[:-1]):
            folder = parent.as_posix()
            entries[folder] = {"type": "directory", "path": folder, "oid": _oid(folder.encode()), "size": 0}
        entries[name] = {"type": "file", "path": name, "oid": _oid(content), "size": len(content)}
    return entries
