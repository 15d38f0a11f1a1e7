"""A server that speaks the few endpoints of the Hugging Face hub that an upload uses, and refuses on demand."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "a-token-of-nobody"  # pragma: allowlist secret


class FakeHub:
    """Keeps what it is sent in memory.

    Args:
        public: Repositories that are there already, and public.
        big: Endings of files that are to go by git-lfs, as the hub wants weights.
    """

    def __init__(self, public: tuple[str, ...] = (), big: tuple[str, ...] = (".safetensors",)) -> None:
        self.private = dict.fromkeys(public, False)
        self.files: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.big = big
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        repository, _, action = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if action == "preupload":
            files = [{"path": f["path"], "uploadMode": self._mode(f["path"])} for f in json.loads(body)["files"]]
            return self._answer(200, {"files": [{**file, "shouldIgnore": False} for file in files]})
        assert action == "commit", path
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        self.hub.asked.append("PUT blob")
        self.hub.blobs[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_GET(self) -> None:
        self.hub.asked.append(f"GET {self.path}")
        repository = self.path.removeprefix("/api/models/").partition("?")[0].partition("/revision")[0]
        if repository not in self.hub.private:
            return self._answer(404, {"error": "Repository not found"})
        return self._answer(200, {"id": repository, "private": self.hub.private[repository], "siblings": []})

    def _create(self, wanted: dict[str, Any]) -> None:
        repository = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        there = repository in self.hub.private
        self.hub.private.setdefault(repository, wanted.get("visibility") == "private")
        return self._answer(409 if there else 200, {"url": f"{self.hub.url}/{repository}"})

    def _validate(self, content: str) -> None:
        """What the hub says about headers that it does not take."""
        base = yaml.safe_load(content.split("---")[1]).get("base_model")
        if base and base.startswith(("/", ".")):
            text = f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
            return self._answer(400, {"errors": [{"message": text}], "warnings": []})
        return self._answer(200, {"errors": [], "warnings": []})

    def _mode(self, path: str) -> str:
        return "lfs" if path.endswith(self.hub.big) else "regular"

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**thing, "actions": {"upload": {"href": f"{self.hub.url}/blob/{thing['oid']}", "header": {}}}}
            for thing in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = self.hub.files.setdefault(repository, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                blob = self.hub.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                files[value["path"]] = blob
        address = f"{self.hub.url}/{repository}/commit/{'0' * 40}"
        self._answer(200, {"commitOid": "0" * 40, "commitUrl": address, "success": True})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        if "error" in body:
            self.send_header("X-Error-Message", body["error"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
