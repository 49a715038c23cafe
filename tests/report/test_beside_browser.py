"""Several runs on one page, in a real browser, opened from disk with the network off."""

from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from literal_runs import EVIL, evil_run, gain_run

from tuner.report.beside import compare
from tuner.report.beside_page import render_comparison

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    good = [
        replace(gain_run(), directory=Path(name), conditions={"cpu_model": name})
        for name in ("one", "other")
    ]
    evil = replace(evil_run(), conditions={"cpu_model": EVIL}, slo=gain_run().slo)
    written = {}
    for name, runs in (("good", good), ("evil", [*good, evil])):
        written[name] = folder / f"{name}.html"
        written[name].write_bytes(render_comparison(compare(runs)).encode("utf-8", "replace"))
    return written


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("name", ["good", "evil"])
def test_it_fits_its_place(opened, pages, name, width):
    with opened(pages[name], width=width) as page:
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert page.locator("[data-chart] svg").count() == 1
        assert page.evaluate("window.stolen") is None


def test_arrow_keys_name_run_configuration_and_latency(opened, pages):
    with opened(pages["good"]) as page:
        page.locator("[data-chart]").focus()
        page.keyboard.press("End")
        words = page.locator(".readout").inner_text()
        assert words.startswith("other\nmax 32, timeout 2000 µs, 2 threads\n600/s offered")
        assert "p99 75.0 ms" in words


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing_serious(opened, pages, scheme):
    with opened(pages["good"], color_scheme=scheme) as page:
        found = Axe().run(page).response["violations"]
        assert [item["id"] for item in found if item["impact"] in {"serious", "critical"}] == []
