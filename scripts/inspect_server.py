"""A page on this machine that shows how a run is doing, and refreshes itself: `scripts.inspect_run --serve`.

    with Watch(look, port=8008) as watch:          # look: gives what there is to see, each time that it is asked
        watch.serve_forever()

    /                the page (`inspect_page.html`), which asks for the rest every few seconds
    /state.json      texts, numbers, names of curves and panels with a version each, so that only new ones are fetched
    /curve/<name>    a chart as PNG
    /panel/<name>    a panel: input | spikes | restored | sharp

The standard library's server. It listens on this machine's loopback alone, and refuses requests whose Host is another
name: a page elsewhere could otherwise let a browser ask for it under a name of its own (DNS rebinding).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from utils.user_error import UserError

PAGE = Path(__file__).with_name("inspect_page.html")
HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class View:
    """What there is to see of a run.

    Attributes:
        facts: texts and numbers, as JSON; the page shows them.
        curves: charts by name, (H,W,3) uint8 RGB, drawn when asked for. curves_version: changes when they do.
        panels: picture files by name.
    """

    facts: dict[str, Any]
    curves: dict[str, Callable[[], np.ndarray]]
    curves_version: str
    panels: dict[str, Path] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Content of state.json."""
        return {
            **self.facts,
            "curves": {name: self.curves_version for name in self.curves},
            "panels": {name: str(path.stat().st_mtime_ns) for name, path in self.panels.items()},
        }


Look = Callable[[], View]


class Watch(ThreadingHTTPServer):
    """The server.

    Args:
        look: what there is to see now; called for every request.
        port: on the loopback; 0: any that is free.

    Attributes:
        address: of the page.

    Raises:
        UserError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, look: Look, port: int) -> None:
        try:
            super().__init__((HOSTS[0], port), partial(_Handler, look))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: {error}; choose another, or 0 for any that is free") from error
        self.address = f"http://{HOSTS[0]}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def __init__(self, look: Look, *arguments: Any) -> None:
        self.look = look
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if (self.headers.get("Host") or "").rpartition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "open the page under 127.0.0.1")
            return
        place = unquote(urlsplit(self.path).path)
        kind, _, name = place.removeprefix("/").partition("/")
        if place == "/":
            self._send("text/html; charset=utf-8", PAGE.read_bytes())
            return
        view = self.look()
        if place == "/state.json":
            self._send("application/json", json.dumps(view.state()).encode())
        elif kind == "curve" and name in view.curves:
            stored = cv2.cvtColor(view.curves[name](), cv2.COLOR_RGB2BGR)
            self._send("image/png", cv2.imencode(".png", stored)[1].tobytes())
        elif kind == "panel" and name in view.panels:
            self._send("image/png", view.panels[name].read_bytes())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: they come every few seconds."""
