"""Finds published weights, and downloads them.

    python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --download ...

A file gets its name only after its length and SHA-256 are verified. The SHA-256 is written beside it
(`<file>.sha256`, in `sha256sum`'s format), and a file that does not match it is refused.
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.user_error import UserError
from utils.utils_file import atomic_write, check_sha256, write_sha256

if TYPE_CHECKING:
    import urllib.request

logger = logging.getLogger(__name__)

RELEASE = "https://github.com/JingyunLiang/VRT/releases/download/v0.0"
"""Address of the files of the VRT release (CC BY-NC 4.0), and the default of --download."""
RELEASE_PAGE = "https://github.com/JingyunLiang/VRT/releases/tag/v0.0"
"""The release's page, for messages."""
TIMEOUT = 30  # seconds without a byte, long enough for a slow connection
BLOCK = 1 << 20  # bytes read at a time, so that memory does not grow with the file


def published_weights(path: Path, base_url: str | None) -> Path:
    """Path of weights; if the file is missing and `base_url` is given, downloads it from `base_url`/<file's name>.

    Raises:
        UserError: the file is missing and can't be downloaded, or is damaged; the message says where to put it.
    """
    if not path.exists():
        if base_url is None:
            raise UserError(
                f"{path}: there is no checkpoint; put the VRT release's {path.name} there, let --download fetch it, "
                "or name another with --checkpoint"
            )
        download(f"{base_url.rstrip('/')}/{path.name}", path)
    check_sha256(path)
    return path


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Downloads a file completely or not at all, and writes its SHA-256 to `<file>.sha256`.

    Args:
        url: an https address; it may redirect only to https addresses.
        path: the file; its folder is created.
        sha256: the content's SHA-256; None: its first digits are taken from the file's name if it has them
            (`...-<8 or more digits>.pth`, as torchvision names weights), else only the length is verified.

    Raises:
        UserError: no such file on the server, or another length or SHA-256; the message says how to download by hand.
    """
    import urllib.error  # slow to import, and commands that only name RELEASE in their --help import this module
    import urllib.parse

    remedy = f"download {url} by hand to {path}"
    if urllib.parse.urlsplit(url).scheme != "https":
        raise UserError(f"--download: {url} is no https address; weights that come otherwise can be altered on the way")
    named = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    expected = sha256.lower() if sha256 is not None else named[1] if named else ""

    logger.info("downloading %s", url)
    try:
        with _https_opener(url, remedy).open(url, timeout=TIMEOUT) as answer, atomic_write(path, "wb") as file:
            if answer.status != 200:
                raise UserError(f"{url}: the server answers {answer.status} {answer.reason}; {remedy}")
            announced = answer.headers.get("Content-Length")
            digest, size = hashlib.sha256(), 0
            while block := answer.read(BLOCK):
                file.write(block)
                digest.update(block)
                size += len(block)
            if announced is not None and size != int(announced):
                raise UserError(f"{url}: {size} of {announced} bytes came; try again, or {remedy}")
            found = digest.hexdigest()
            if not found.startswith(expected):
                raise UserError(f"{url}: the content's SHA-256 is {found}, not {expected}; {remedy}")
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: the server answers {error.code} {error.reason}; {remedy}") from error
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise UserError(f"{url}: cannot be reached ({getattr(error, 'reason', error)}); {remedy}") from error
    write_sha256(path, found)
    logger.info("%s: %.1f MB, SHA-256 %s", path, size / 1e6, found)


def _https_opener(url: str, remedy: str) -> "urllib.request.OpenerDirector":
    """Opens addresses, and follows redirections to https addresses only; `url` and `remedy` are for messages."""
    import urllib.parse
    import urllib.request

    class HttpsOnly(urllib.request.HTTPRedirectHandler):
        """Refuses other redirections."""

        def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
            target = arguments[-1]
            if urllib.parse.urlsplit(target).scheme != "https":
                raise UserError(f"{url}: the server sends on to {target}, which is no https address; {remedy}")
            return super().redirect_request(*arguments)

    return urllib.request.build_opener(HttpsOnly)
