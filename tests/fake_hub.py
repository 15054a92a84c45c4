"""A hub on this machine: repositories in memory behind the HTTP calls that ``huggingface_hub`` makes.

LFS objects come over the batch API, as without Xet. ``forged`` lists files that repositories claim to have beside their
own, and ``requests`` every call, as METHOD PATH.
"""

import base64
import contextlib
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_test"


class FakeHub:
    """The state of a hub.

    Attributes:
        repos: by id, ``private`` and ``branches`` with the bytes of files by name.
    """

    def __init__(self):
        self.repos, self.objects, self.forged, self.requests = {}, {}, {}, []
        self.refused_status = None

    def environment(self, cache, token=TOKEN):
        """Variables for a process that uses this hub and nothing else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        return {**kept, **own, **({"HF_TOKEN": token} if token else {}), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def files(self, repo, branch="main"):
        return {**self.repos[repo]["branches"][branch], **self.forged.get(repo, {})}


@contextlib.contextmanager
def serve_hub():
    """A hub at ``hub.url`` while the context lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _sha(files):
    text = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())})
    return hashlib.sha1(text.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Print nothing."""

    def _send(self, status, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code="RepoNotFound"):
        self._send(404, {"error": code}, X_Error_Code=code, X_Error_Message="not here")

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _begin(self):
        """The parts of the path; None where the call was answered already."""
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.refused_status is not None:
            self._body()
            self._send(self.hub.refused_status, {"error": "refused"})
            return None
        return path.strip("/").split("/")

    def _may_write(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "unauthorized"})
            return False
        return True

    def do_PUT(self):
        parts = self._begin()
        if parts is not None:
            data = self._body()
            assert hashlib.sha256(data).hexdigest() == parts[-1]
            self.hub.objects[parts[-1]] = data
            self._send(200)

    def do_POST(self):
        parts, body = self._begin(), self._body() if self.hub.refused_status is None else b""
        if parts is None or not self._may_write():
            return
        match parts:
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._send(200, {"errors": [], "warnings": []})
            case ["api", "models", owner, name, "branch", branch]:
                branches = self.hub.repos[f"{owner}/{name}"]["branches"]
                branches.setdefault(branch, dict(branches["main"]))
                self._send(200, {})
            case ["api", "models", *_, "preupload", _]:
                files = [file["path"] for file in json.loads(body)["files"]]
                mode = {True: "lfs", False: "regular"}
                self._send(
                    200,
                    {
                        "files": [
                            {"path": f, "uploadMode": mode[f.endswith(".safetensors")], "shouldIgnore": False}
                            for f in files
                        ]
                    },
                )
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                for item in objects:
                    item["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{item['oid']}"}}
                self._send(200, {"objects": objects, "transfer": "basic"})
            case ["api", "models", owner, name, "commit", branch]:
                self._commit(f"{owner}/{name}", branch, [json.loads(line) for line in body.splitlines()])
            case _:
                self._missing()

    def _create(self, asked):
        repo = f"{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        if repo in self.hub.repos:
            self._send(409, {"error": "exists", "url": f"{self.hub.url}/{repo}"})
            return
        self.hub.repos[repo] = {"private": private, "branches": {"main": {}}}
        self._send(200, {"url": f"{self.hub.url}/{repo}"})

    def _commit(self, repo, branch, lines):
        files = dict(self.hub.repos[repo]["branches"][branch])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.repos[repo]["branches"][branch] = files
        oid = _sha(files)
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"})

    def do_GET(self):
        parts = self._begin()
        if parts is None:
            return
        match parts:
            case ["api", "models", owner, name, *rest] if f"{owner}/{name}" in self.hub.repos:
                self._describe(f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *path] if f"{owner}/{name}" in self.hub.repos:
                self._resolve(f"{owner}/{name}", revision, "/".join(path))
            case _:
                self._missing()

    do_HEAD = do_GET

    def _at(self, repo, revision):
        branches = self.hub.repos[repo]["branches"]
        for branch in branches:
            if revision in (branch, _sha(self.hub.files(repo, branch))):
                return self.hub.files(repo, branch)
        return None

    def _describe(self, repo, rest):
        files = self._at(repo, rest[1] if len(rest) > 1 else "main")
        if files is None:
            self._missing("RevisionNotFound")
        elif rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            self._send(200, entries)
        else:
            siblings = [{"rfilename": name} for name in files]
            info = {"id": repo, "sha": _sha(files), "private": self.hub.repos[repo]["private"], "siblings": siblings}
            self._send(200, info)

    def _resolve(self, repo, revision, path):
        files = self._at(repo, revision)
        if files is None or path not in files:
            self._missing("RevisionNotFound" if files is None else "EntryNotFound")
            return
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        self._send(200, files[path], ETag=etag, X_Repo_Commit=_sha(files))
