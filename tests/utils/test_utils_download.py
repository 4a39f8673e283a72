"""Downloads from a server on this machine: whole or not at all, checked, and clear about what to do by hand."""

import hashlib
import http.server
import shutil
import ssl
import subprocess
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
        elif name == "plain.pth":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/whole.pth")
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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that answers, whose certificate is trusted."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the server's certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    command += f" -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.socket = context.wrap_socket(served.socket, server_side=True)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield f"https://127.0.0.1:{served.server_address[1]}/release"
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
    assert published_weights(path, "https://127.0.0.1:1/") == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"its SHA-256 is .*remove both and download it again"):
        published_weights(path, server)


@pytest.mark.parametrize(
    "name, message",
    [
        ("cut.pth", r"cut\.pth: 1000 of 1280000 bytes came; try again, or download .* by hand to"),
        ("missing.pth", r"missing\.pth: the server answers 404 Not Found; download .* by hand to"),
        ("plain.pth", r"sends on to http://127\.0\.0\.1:1/whole\.pth, which is no https address"),
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


def test_the_name_says_what_the_content_has_to_be(server: str, tmp_path: Path) -> None:
    """As torchvision's do: vgg16-397923af.pth."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    download(f"{server}/whole.pth", tmp_path / f"net-{digest[:8]}.pth")
    with pytest.raises(ValueError, match=r"SHA-256 is .*, not 00000000"):
        download(f"{server}/whole.pth", tmp_path / "net-00000000.pth")
    assert not (tmp_path / "net-00000000.pth").exists()


def test_no_server_and_no_address(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be reached .*by hand to .*x\.pth"):
        download(f"https://127.0.0.1:{free_port()}/x.pth", tmp_path / "x.pth")
    for url in ("file:///x.pth", "http://127.0.0.1/x.pth", "ftp://127.0.0.1/x.pth", "x.pth"):
        with pytest.raises(ValueError, match="no https address"):
            download(url, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"zoo/x\.pth: there is no checkpoint; put the VRT release's x\.pth there"):
        published_weights(tmp_path / "zoo" / "x.pth", None)
    assert list(tmp_path.iterdir()) == []
