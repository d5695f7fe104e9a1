"""A real browser for tests: Debian's Chromium, headless, without a network.

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


@contextmanager
def opened(path, *, width=1280, dark=False):
    """A page of a file with networking off; yields it and what it complained of or asked for."""
    with browser() as found:
        context = found.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
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
