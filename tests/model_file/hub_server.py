"""A small Hugging Face Hub: the requests with which huggingface_hub makes a repository, uploads to it (large files by LFS) and downloads."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

TOKEN = "hf_test"


class Hub:
    """Repositories of one server.

    Attributes:
        files: content by (repository, path).
        commits: messages of all commits.
        requests: method and path of every request.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.commits: list[str] = []
        self.requests: list[str] = []
        self.repositories: dict[str, dict[str, Any]] = {}
        self._objects: dict[str, bytes] = {}

    def app(self) -> Flask:
        app = Flask("hub")

        @app.before_request
        def allowed() -> Any:
            self.requests.append(f"{request.method} {request.path}")
            if request.method == "POST" and request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return jsonify(error="Invalid username or password."), 401
            return None

        @app.post("/api/repos/create")
        def create() -> Any:
            wanted = request.get_json()
            name = f"{wanted['organization']}/{wanted['name']}"
            self.repositories[name] = wanted
            return jsonify(url=f"{request.host_url}{name}", name=name, id=name)

        @app.post("/api/validate-yaml")
        def validate() -> Any:
            return jsonify(errors=[], warnings=[])

        @app.post("/api/models/<owner>/<name>/preupload/<revision>")
        def preupload(owner: str, name: str, revision: str) -> Any:
            files = request.get_json()["files"]
            modes = [("lfs" if file["path"].endswith(".safetensors") else "regular", file["path"]) for file in files]
            return jsonify(files=[{"path": path, "uploadMode": mode, "shouldIgnore": False} for mode, path in modes])

        @app.post("/<owner>/<name>.git/info/lfs/objects/batch")
        def batch(owner: str, name: str) -> Any:
            objects = [
                {"oid": item["oid"], "size": item["size"], "actions": {"upload": {"href": f"{request.host_url}lfs/{item['oid']}"}}}
                for item in request.get_json()["objects"]
            ]
            return Response(json.dumps({"transfer": "basic", "objects": objects}), mimetype="application/vnd.git-lfs+json")

        @app.put("/lfs/<oid>")
        def put(oid: str) -> Any:
            self._objects[oid] = request.get_data()
            return ""

        @app.post("/api/models/<owner>/<name>/commit/<revision>")
        def commit(owner: str, name: str, revision: str) -> Any:
            for line in request.get_data().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "header":
                    self.commits.append(value["summary"])
                elif item["key"] == "file":
                    self.files[f"{owner}/{name}", value["path"]] = base64.b64decode(value["content"])
                else:
                    assert item["key"] == "lfsFile"
                    self.files[f"{owner}/{name}", value["path"]] = self._objects[value["oid"]]
            oid = sha1(str(len(self.commits)).encode()).hexdigest()
            return jsonify(success=True, commitOid=oid, commitUrl=f"{request.host_url}{owner}/{name}/commit/{oid}")

        @app.get("/<owner>/<name>/resolve/<revision>/<path:path>")
        def resolve(owner: str, name: str, revision: str, path: str) -> Any:
            content = self.files.get((f"{owner}/{name}", path))
            if content is None:
                return Response("", 404, {"X-Error-Code": "EntryNotFound" if f"{owner}/{name}" in self.repositories else "RepoNotFound"})
            digest = sha1(content).hexdigest()
            return Response(content, headers={"ETag": f'"{digest}"', "X-Repo-Commit": sha1(b"1").hexdigest()})

        return app


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve a hub on this machine and give its address."""
    server = make_server("127.0.0.1", 0, hub.app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
