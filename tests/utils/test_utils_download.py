"""Downloads from a server on this machine: whole or not at all, checked, and clear about what to do by hand."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local_ranks import free_port
from utils.utils_download import download, published_weights

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a file, a shortened one, a redirection, and errors."""

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name == "moved.pth":
            self.send_response(302)
            self.send_header("Location", "/whole.pth")
            self.end_headers()
        elif name == "missing.pth":
            self.send_error(404)
        else:
            self.send_response(200 if name != "nothing.pth" else 204)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if name != "cut.pth" else CONTENT[:1000])

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that answers."""
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}/release"
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["whole.pth", "moved.pth"])
def test_a_file_that_comes(server: str, tmp_path: Path, name: str) -> None:
    path = published_weights(tmp_path / "zoo" / name, server)
    assert path.read_bytes() == CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert path.with_name(f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    assert sorted(file.name for file in path.parent.iterdir()) == [name, f"{name}.sha256"]
    # What is there is not fetched again, and what has changed since is refused.
    assert published_weights(path, "http://127.0.0.1:1/") == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"its SHA-256 is .*remove both and download it again"):
        published_weights(path, server)


@pytest.mark.parametrize(
    "name, message",
    [
        ("cut.pth", r"cut\.pth: 1000 of 1280000 bytes came; try again, or download .* by hand to"),
        ("missing.pth", r"missing\.pth: the server answers 404 Not Found; download .* by hand to"),
        ("nothing.pth", r"nothing\.pth: the server answers 204 No Content"),
    ],
)
def test_a_file_that_does_not_come(server: str, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        download(f"{server}/{name}", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_another_content_than_is_known(server: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"SHA-256 is .*, not {'0' * 64}"):
        download(f"{server}/whole.pth", tmp_path / "whole.pth", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    download(f"{server}/whole.pth", tmp_path / "whole.pth", sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    assert (tmp_path / "whole.pth").read_bytes() == CONTENT


def test_no_server_and_no_address(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be reached .*by hand to .*x\.pth"):
        download(f"http://127.0.0.1:{free_port()}/x.pth", tmp_path / "x.pth")
    with pytest.raises(ValueError, match="no http or https address"):
        download("file:///x.pth", tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"zoo/x\.pth: there is no checkpoint; put the VRT release's x\.pth there"):
        published_weights(tmp_path / "zoo" / "x.pth", None)
    assert list(tmp_path.iterdir()) == []
