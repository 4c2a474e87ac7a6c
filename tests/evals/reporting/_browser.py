"""A headless Chromium for tests of pages, found on the machine or installed once, and what it says of a page."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL = (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"])


@functools.cache
def executable() -> str | None:
    """The browser of this machine; where there is none and one may, it is installed."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in INSTALL:
            subprocess.run(command, check=False, capture_output=True, timeout=100)
        found = shutil.which("chromium")
    return found


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A context of a new profile. Skips, and says why, where there is no browser."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright isn't installed (the extra `test` has it)"
    )
    path = executable()
    if path is None:
        pytest.skip("there is no Chromium on this machine, and none could be installed by apt-get")
    with playwright.sync_playwright() as running:
        context = running.chromium.launch_persistent_context(
            str(profile), executable_path=path, args=list(FLAGS), headless=True
        )
        try:
            yield context
        finally:
            context.close()


class Watched:
    """A page, and all that it complained of and asked for."""

    def __init__(self, context: Any, path: Path, width: int = 1280, *, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = context.new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
