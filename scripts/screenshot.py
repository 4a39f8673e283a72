"""Takes a picture of a page for the documents, with a headless Chromium.

    ./svrt simulate --root trainsets/page --size 240 320 --train_clips 0 --test_clips 2 --test_frames 24
    ./svrt test --task guided --trust --output results/page --folder_lq trainsets/page/GOPRO_Large/test_GT_blurred \\
        --folder_gt trainsets/page/GOPRO_Large/test_GT --folder_spike trainsets/page/GOPRO_Large_spike_seq/test
    python -m scripts.screenshot results/page/guided/index.html docs/figures/report_clip.jpg --width 900 \\
        --selector .clip
    python -m scripts.screenshot results/page/guided/index.html docs/figures/report_line.jpg --width 900 \\
        --selector .profile --open

    ./svrt train --opt options/demo/guided.json --set task=inspect_page train.total_iter=200 train.checkpoint_test=50 \\
        train.checkpoint_print=4 train.checkpoint_save=100
    python -m scripts.inspect_run experiments/inspect_page --serve &
    python -m scripts.screenshot http://127.0.0.1:8008 docs/figures/inspect_run.jpg --width 1100 --height 760

The window, or the first element that --selector finds, whole. --open opens the page's folded panels first. Needs
Chromium and its driver (Debian: chromium, chromium-driver).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import screenshot_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(screenshot_parser(__doc__ or ""))

from scripts.browser import Browser, headless_chromium
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_image import imwrite_rgb

OPEN = "for (const panel of document.querySelectorAll('details')) panel.open = true"
# A page that fills itself by requests, or whose opened panels draw, is complete once nothing was left for a while.
SETTLED = """
return document.readyState === "complete" && [...document.images].every(image => image.complete)
    && !document.querySelector("details[open]:is(.zoom, .profile):not([data-built])");
"""
QUIET = 1.0  # seconds
PATIENCE = 60.0  # seconds
QUALITY = 80  # of a JPEG: pages that fit into a repository, whose small text can be read


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    arguments = screenshot_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: take(arguments))


def take(arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: no Chromium, no such page, or nothing on it that the selector finds.
    """
    page: Path | str = arguments.page
    if not str(page).startswith("http://"):
        page = Path(page)
        if not page.is_file():
            raise UserError(f"{page}: no such file; a page is an HTML file, or an address that begins with http://")
    with headless_chromium() as browser:
        browser.open(page, arguments.width, arguments.height)
        if arguments.open:
            browser.run(OPEN)
        settle(browser)
        if not browser.run("return Boolean(document.querySelector(arguments[0]))", arguments.selector):
            raise UserError(f"--selector {arguments.selector}: nothing on {page} has it")
        browser.run("document.querySelector(arguments[0]).scrollIntoView()", arguments.selector)
        picture = browser.element(arguments.selector) if arguments.selector != "html" else browser.window()
    imwrite_rgb(arguments.output, picture, QUALITY)
    print(f"{arguments.output}: {picture.shape[0]}x{picture.shape[1]}")


def settle(browser: Browser) -> None:
    """Waits until the page has shown all its pictures for `QUIET` seconds.

    Raises:
        UserError: that takes more than `PATIENCE` seconds.
    """
    end, since = time.monotonic() + PATIENCE, time.monotonic()
    while time.monotonic() < since + QUIET:
        if time.monotonic() > end:
            raise UserError(f"the page loads pictures for more than {PATIENCE:.0f} s")
        time.sleep(0.1)
        if not browser.run(SETTLED):
            since = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
