"""A real browser for tests: Debian's Chromium, headless; no network but a server of the test.

Where it is not installed the tests are skipped with that reason, unless BROWSER_TESTS=required.
"""

import os
import shutil
from contextlib import contextmanager

import pytest

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

# Of Chromium itself where there is no graphics card: how fast a canvas was read.
DRIVER = "GL Driver Message (OpenGL, Performance"


def require_browser():
    """Skip the test, or fail it where a browser must be there."""
    missing = [
        what
        for what, found in (
            ("playwright", sync_playwright),
            ("chromium", shutil.which("chromium")),
        )
        if not found
    ]
    if missing:
        told = f"{' and '.join(missing)} not installed"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(told)
        pytest.skip(told)


@contextmanager
def browser():
    """A running Chromium."""
    require_browser()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            yield found
        finally:
            found.close()


def _listen(page):
    """What the page complains of from now on."""
    complaints = []
    page.on(
        "console",
        lambda message: None if DRIVER in message.text else complaints.append(message.text),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    return complaints


@contextmanager
def visited(url):
    """A page that reaches the server at ``url`` alone; yields it and what it complained of."""
    with browser() as found:
        page = found.new_context(viewport={"width": 1280, "height": 900}).new_page()
        complaints = _listen(page)

        def only_there(route):
            if route.request.url.startswith((url, "data:", "blob:")):
                route.continue_()
            else:
                complaints.append(route.request.url)
                route.abort()

        page.route("**/*", only_there)
        yield page, complaints


@contextmanager
def opened(path, *, width=1280, dark=False):
    """A page of a file with networking off; yields it and what it complained of or asked for."""
    with browser() as found:
        context = found.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        page = context.new_page()
        complaints = _listen(page)
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url[:80])
                if not request.url.startswith(("file:", "data:"))
                else None
            ),
        )
        page.goto(path.resolve().as_uri())
        yield page, complaints
