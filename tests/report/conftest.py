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


@pytest.fixture(scope="module")
def opened(chromium):
    """Show a page from disk with the network off; whatever it complains about fails the test.

    Each page is loaded once for all tests of a module: drawing its charts takes longest. What a
    test does to it (a choice, a tab) stays done; size, medium and colours are set anew.
    """
    context = chromium.new_context(offline=True, permissions=["clipboard-read", "clipboard-write"])
    loaded = {}

    def load(path):
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _note(complaints, request.url))
        page.goto(path.as_uri())
        if page.locator("[data-chart]").count():
            page.wait_for_selector("html[data-drawn=yes]")
        return page, complaints

    @contextmanager
    def show_page(path, *, width=1440, media="screen", color_scheme="light"):
        if path not in loaded:
            loaded[path] = load(path)
        page, complaints = loaded[path]
        page.bring_to_front()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media=media, color_scheme=color_scheme)
        yield page
        assert complaints == []

    yield show_page
    context.close()


def _note(complaints, url):
    if not url.startswith(("file:", "data:")):
        complaints.append(f"asked for {url}")
