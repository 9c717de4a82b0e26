"""The HTTP side of `katib_api`: the paths of the Kubernetes API that a search uses, and a kube-config for them."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml
from katib_api import NAMESPACE, TOKEN, KatibApi, status


class Handler(BaseHTTPRequestHandler):
    """Answers for the resources that a search uses."""

    server: "Server"

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def _answer(self, verb: str) -> None:
        with self.server.lock:
            code, body = self._reply(verb)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _reply(self, verb: str) -> tuple[int, Any]:
        api, url = self.server.api, urlparse(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        match = re.fullmatch(r"/apis?/(?:kubeflow.org/v1beta1|v1)/namespaces/([^/]+)/(\w+)(?:/([^/]+))?", url.path)
        assert match, url.path
        namespace, plural, name = match.groups()
        verb = "list" if verb == "get" and not name else verb
        api.requests.append((verb, plural))
        if self.headers.get("Authorization") != f"Bearer {api.token}":
            return 401, status(401, "Unauthorized", "Unauthorized")
        if api.failing_requests:
            api.failing_requests -= 1
            return 503, status(503, "the server is currently unable to handle the request", "ServiceUnavailable")
        if plural in ("experiments", "trials") and not api.has_katib:
            return 404, "404 page not found\n"
        if (verb, plural) in api.forbidden:
            who = "system:serviceaccount:hounsfield:default"
            said = (
                f'{plural} is forbidden: User "{who}" cannot {verb} resource "{plural}" in the namespace "{namespace}"'
            )
            return 403, status(403, said, "Forbidden")
        if verb == "create":
            if namespace not in api.namespaces:
                return 404, status(404, f'namespaces "{namespace}" not found', "NotFound")
            return api.create(body)
        if verb == "list":
            query = parse_qs(url.query).get("labelSelector", [""])[0]
            owner = query.partition("=")[2]
            items = list(api.objects["events"].values()) if plural == "events" else api.of(plural, owner)
            return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        if verb == "get":
            api.step(name)
        found = api.objects[plural].get(name)
        if found is None:
            return 404, status(404, f'{plural}.kubeflow.org "{name}" not found', "NotFound")
        if verb == "delete":
            api.delete(name)
        return 200, found

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's own output is enough."""


class Server(ThreadingHTTPServer):
    """An HTTP server for one cluster."""

    def __init__(self, api: KatibApi) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api, self.lock = api, threading.Lock()


@contextmanager
def serving(api: KatibApi, kubeconfig: Path, token: str = TOKEN) -> Iterator[KatibApi]:
    """Serve `api` on the loopback and write a kube-config for it."""
    server = Server(api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": api.url}}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
            }
        )
    )
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
