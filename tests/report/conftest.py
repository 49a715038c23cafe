"""One real browser for all browser tests: Debian's Chromium, driven by Playwright."""

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")  # while it lives, the thread's event loop is Playwright's
def chromium():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        # Root has no sandbox of its own to offer; the pages are our own files.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a page from disk with the network off; whatever it complains about fails the test."""

    @contextmanager
    def open_page(path, *, width=1440, height=900, **options):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            offline=True,
            permissions=["clipboard-read", "clipboard-write"],
            **options,
        )
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _note(complaints, request.url))
        page.goto(path.as_uri())
        if page.locator("[data-chart]").count():
            page.wait_for_selector("html[data-drawn=yes]")
        yield page
        assert complaints == []
        context.close()

    return open_page


def _note(complaints, url):
    if not url.startswith(("file:", "data:")):
        complaints.append(f"asked for {url}")
