"""A model hub on this machine: the few answers of the Hugging Face hub that a download needs."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _tree(folder: Path) -> list[dict[str, object]]:
    """All files as the hub lists them; `oid` is git's name for the content, which the client only stores."""
    return [
        {
            "type": "file",
            "path": str(file.relative_to(folder)),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


@contextmanager
def local_hub(repositories: dict[str, Path]) -> Iterator[str]:
    """Serve folders as repositories "owner/name"; yields the address for HF_ENDPOINT."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            for name, folder in repositories.items():
                if path.startswith(f"api/models/{name}/tree/"):
                    return self._send(json.dumps(_tree(folder)).encode(), "application/json")
                if path.startswith(f"api/models/{name}"):
                    files = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
                    siblings = [{"rfilename": file} for file in files]
                    answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
                    return self._send(json.dumps(answer).encode(), "application/json")
                for revision in (COMMIT, "main"):
                    prefix = f"{name}/resolve/{revision}/"
                    if path.startswith(prefix) and (folder / path.removeprefix(prefix)).is_file():
                        content = (folder / path.removeprefix(prefix)).read_bytes()
                        return self._send(content, "application/octet-stream")
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
