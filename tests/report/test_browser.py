"""The page as a person meets it, in a real browser, opened from disk with the network off."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from literal_runs import (
    OTHER,
    big_run,
    empty_run,
    evil_run,
    failed_run,
    gain_run,
    infeasible_run,
    invalid_run,
    level,
    one_trial_run,
    trial,
)

from tuner.batching import BatchingParameters
from tuner.commands.publish import publish_report
from tuner.records import ServerIdentity
from tuner.report.page import render_page
from tuner.report.wording import MISSING
from tuner.search.queue_bound import deployable
from tuner.slo import Slo
from tuner.store import RunDirectory

pytestmark = pytest.mark.browser

EXAMPLE = Path(__file__).parents[2] / "results" / "example"
WIDTHS = (360, 1440)


DEPLOYED = {
    "name": "m", "image": "tensorflow/serving:2.20.0", "flags": {},
    "models": [{"name": "m", "path": "/m"}], "cpus": [],
}  # fmt: skip
"""What the ways of starting a server are made of."""


def written(run, folder):
    path = folder / "report.html"
    path.write_bytes(render_page(run, ()).encode("utf-8", "replace"))
    return path


@pytest.fixture(scope="module")
def gain_page(tmp_path_factory):
    return written(deployed(gain_run()), tmp_path_factory.mktemp("gain"))


@pytest.fixture(scope="module")
def example_page(tmp_path_factory):
    copy = tmp_path_factory.mktemp("example") / "run"
    shutil.copytree(EXAMPLE, copy)
    publish_report(RunDirectory(copy))
    return copy / "report.html"


def deployed(run, **changes):
    return replace(run, recommendation={**run.recommendation, "deployment": DEPLOYED}, **changes)


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory):
    return written(evil_run(), tmp_path_factory.mktemp("evil"))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (one_trial_run(), "No recommendation yet."),
        (infeasible_run(), "No configuration met the promise."),
        (invalid_run(), "No measurement can be trusted."),
        (failed_run(), "No configuration could be measured."),
        (empty_run(), "Nothing has been measured yet."),
    ],
    ids=["one trial", "nothing feasible", "only invalid", "only failed", "empty"],
)
def test_any_run_gives_a_page_that_says_where_it_stands(opened, tmp_path, run, said):
    path = written(run, tmp_path)
    for width in WIDTHS:
        with opened(path, width=width) as page:
            assert said in page.locator("h1").inner_text()
            assert not overflows(page)


def test_a_half_written_run_gives_a_page(opened, tmp_path):
    for name in ("scenario.toml", "environment.json"):
        shutil.copy(EXAMPLE / name, tmp_path)
    lines = (EXAMPLE / "trials.jsonl").read_bytes().split(b"\n")
    (tmp_path / "trials.jsonl").write_bytes(b"\n".join(lines[:3]) + b"\n" + lines[3][:500])
    publish_report(RunDirectory(tmp_path))
    with opened(tmp_path / "report.html") as page:
        assert "No recommendation yet." in page.locator("h1").inner_text()
        assert page.locator("#trials tbody tr").count() == 3


def overflows(page):
    """Whether anything is wider than the window, once every chart has been drawn for its size."""
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart] svg')]"
        ".every((svg) => svg.getBoundingClientRect().right <= innerWidth)"
    )
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_change_nothing(opened, evil_page, width):
    with opened(evil_page, width=width) as page:
        assert not overflows(page)
        assert page.evaluate("window.stolen") is None
        assert "<script>" in ask(page, "p99", 40)


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_fit_their_place(opened, gain_page, width):
    with opened(gain_page, width=width) as page:
        assert not overflows(page)
        assert page.locator("[data-chart] svg").count() == 7
        assert page.evaluate(TOUCHING) == []


TOUCHING = """(() => {
  const names = [...document.querySelectorAll("[data-chart=front] .role-mark text")]
    .filter((text) => getComputedStyle(text).strokeWidth !== "5px")
    .map((text) => [text.textContent, text.getBoundingClientRect()]);
  return names.flatMap(([one, a], at) => names.slice(at + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right)
    .filter(([, b]) => a.top < b.bottom && b.top < a.bottom)
    .map(([other]) => [one, other]));
})()"""
"""The contenders' names on the front that cover one another."""


def crowded_run():
    """A slow model: three configurations within a few requests a second and a few ms."""
    run = gain_run()
    off, default, other, best = run.trials
    return replace(run, trials=(
        trial(0, "off", off.config, [level(20, 52.0), level(26, 56.0)], reference=1),
        trial(1, "default", default.config, [level(20, 50.0), level(27, 57.0)], reference=1),
        trial(2, "guide", other.config, [level(24, 51.0)], reference=0),
        trial(3, "sampler", best.config, [level(21, 49.0), level(28, 58.0)], reference=1),
    ))  # fmt: skip


def test_names_of_close_points_do_not_cover_one_another(opened, tmp_path):
    path = written(crowded_run(), tmp_path)
    for width in WIDTHS:
        with opened(path, width=width) as page:
            assert not overflows(page)
            assert page.locator("[data-chart=front] .role-mark text").count() == 7  # and the limit
            page.wait_for_function(f"({TOUCHING}).length === 0")


CUT = """[...document.querySelectorAll("[data-chart] .role-legend-label text")].filter((text) => {
  const svg = text.closest("svg").getBoundingClientRect();
  const box = text.getBoundingClientRect();
  return text.textContent.includes("…") || box.right > svg.right || box.bottom > svg.bottom;
}).map((text) => text.textContent)"""
"""Names in a legend of which something is missing."""


def until(page, expression):
    """Wait for what becomes true once charts have settled; the page's policy forbids eval."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def kept_default(run):
    """The default is kept: the longest of names, at the load that it sustains."""
    best = run.recommendation["default"]
    default = next(trial.config.id for trial in run.trials if trial.role == "default")
    kept = {**run.recommendation, "recommended": best, "config_id": default, "verdict": "tie"}
    return replace(run, recommendation=kept)


def test_names_in_legends_are_whole(opened, tmp_path):
    path = written(kept_default(gain_run()), tmp_path)
    for width in WIDTHS:
        with opened(path, width=width) as page:
            legend = page.locator("[data-chart=percentiles] .role-legend-label text")
            assert "default (recommended)" in legend.first.text_content()
            until(page, f"({CUT}).length === 0")
    with opened(path, media="print") as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        until(page, f"({CUT}).length === 0")


AWAY = """(() => {
  const front = document.querySelector("[data-chart=front]");
  const marks = [...[...front.querySelectorAll(".mark-symbol.role-mark")].at(-1).children]
    .map((mark) => mark.getBoundingClientRect())
    .map((box) => [(box.left + box.right) / 2, (box.top + box.bottom) / 2]);
  return [...front.querySelectorAll(".role-mark text")]
    .filter((text) => getComputedStyle(text).strokeWidth !== "5px")
    .filter((text) => !text.textContent.startsWith("limit"))
    .map((text) => text.getBoundingClientRect())
    .map((box) => Math.min(...marks.map(([x, y]) => Math.hypot(
      Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom)))));
})()"""
"""How far each contender's name on the front lies from the nearest contender, in pixels."""


def test_names_lie_beside_their_points(opened, example_page):
    for width in WIDTHS:
        with opened(example_page, width=width) as page:
            until(page, f"Math.max(...{AWAY}) < 48")
            assert len(page.evaluate(AWAY)) == 2


def test_on_a_phone_a_trial_has_no_empty_lines(opened, gain_page):
    cells = "[...document.querySelectorAll('#trials td')]"
    empty = f"{cells}.filter((cell) => cell.innerText === '{MISSING}')"
    for width, some in ((360, False), (1440, True)):
        with opened(gain_page, width=width) as page:
            assert page.evaluate(f"{empty}.some((cell) => cell.offsetParent !== null)") is some


def test_hovering_a_point_names_its_configuration_load_and_latency(opened, gain_page):
    with opened(gain_page) as page:
        chart = page.locator("[data-chart=load]")
        chart.scroll_into_view_if_needed()
        chart.locator(".mark-symbol.role-mark").last.locator("path").nth(-2).hover()
        tip = chart.locator(".tip")
        words = tip.inner_text()
        assert "recommended: max 32, timeout 2000 µs, 2 threads" in words
        assert "p99 55.0 ms" in words
        assert "24.0 rows per batch" in words


def ask(page, percentile, limit):
    page.select_option("#choice-percentile", percentile)
    page.fill("#choice-limit", str(limit))
    return page.locator("#choice-answer").inner_text()


def test_another_promise_names_its_configuration_and_its_file(opened, gain_page):
    with opened(gain_page) as page:
        assert "max 32, timeout 2000 µs, 2 threads" in ask(page, "p99", 60)
        assert "This run's own promise" in page.locator("#choice-detail").inner_text()
        assert ask(page, "p99", 40) == "For p99 ≤ 40 ms: max 8, 2 allowed sizes."
        trial = next(trial for trial in gain_run().trials if trial.config == OTHER)
        expected = deployable(trial, Slo((("p99", 40.0),))).batching
        found = BatchingParameters.from_text(page.locator("#choice-file").inner_text())
        assert found == expected
        assert "nothing that was measured" in ask(page, "p99", 1)
        assert "Give a limit" in ask(page, "p99", -5)
        assert "max 32" in ask(page, "p50", 11)


def test_every_copy_button_copies_its_text(opened, gain_page):
    with opened(gain_page) as page:
        for tab in page.get_by_role("tab").all():
            tab.click()
            panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
            panel.get_by_role("button").click()
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == panel.locator("pre").text_content()
        page.get_by_role("button", name="Copy the flags").click()
        assert "--grpc_max_threads=256" in page.evaluate("navigator.clipboard.readText()")
        ask(page, "p99", 40)
        page.get_by_role("button", name="Copy the file for this promise").click()
        assert "max_batch_size" in page.evaluate("navigator.clipboard.readText()")


def test_the_keyboard_alone_reaches_everything(opened, gain_page):
    with opened(gain_page) as page:
        page.get_by_role("tab").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#way-docker").is_visible()
        assert not page.locator("#way-file").is_visible()
        assert page.locator("#flags").is_visible()
        chart = page.locator("[data-chart=front]")
        chart.focus()
        page.keyboard.press("End")
        assert "600/s offered" in chart.locator(".readout").inner_text()
        page.keyboard.press("ArrowLeft")
        assert "500/s offered" in chart.locator(".readout").inner_text()
        reached = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.tagName")
            )
        assert {"tab-docker", "choice-percentile", "choice-limit", "A"} <= reached


A4 = 718
"""Its width at 96 dots an inch, less the margins."""

NARROWED = f"""() => [...document.querySelectorAll("[data-chart] svg")]
    .every((drawing) => drawing.getBoundingClientRect().width < {A4})"""

TOPS = """["load", "percentiles"].map((name) =>
    document.querySelector(`[data-chart=${name}]`).getBoundingClientRect().y)"""


def test_paper_shows_everything_in_black_on_white(opened, gain_page):
    with opened(gain_page, media="print", color_scheme="dark") as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        style = "getComputedStyle(document.body)"
        assert page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(f"{style}.color") == "rgb(31, 35, 40)"
        for name in ("#way-file", "#flags", "#environment table", "#trials table"):
            assert page.locator(name).is_visible(), name
        for name in ("nav", "#choice", ".copy-button", "#environment summary"):
            assert not page.locator(name).first.is_visible(), name
        tops = {name: page.locator(name).bounding_box()["y"] for name in ("#why", "#plots")}
        assert tops["#why"] < tops["#plots"], "text fills the first page, a chart would not fit"
        page.wait_for_function(NARROWED)
        beside = page.evaluate(TOPS)  # both at once: charts that are still drawn move each other
        assert beside[0] == beside[1]
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("#environment details[open]").count() == 0


def test_paper_has_one_way_of_starting_the_server_at_most(opened, gain_page, tmp_path):
    docker = ServerIdentity("docker", "2.20.0", "tensorflow/serving:2.20.0")
    in_docker = written(deployed(gain_run(), server=docker), tmp_path)
    for path, shown in ((gain_page, []), (in_docker, ["way-docker"])):
        with opened(path, media="print") as page:
            printed = [
                panel.get_attribute("id")
                for panel in page.locator(".panel").all()
                if panel.is_visible()
            ]
            assert printed == ["way-file", *shown]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing_serious(opened, gain_page, evil_page, scheme):
    for path in (gain_page, evil_page):
        with opened(path, color_scheme=scheme) as page:
            found = Axe().run(page).response["violations"]
            serious = [
                (item["id"], item["nodes"][0]["html"][:200], item["nodes"][0]["failureSummary"])
                for item in found
                if item["impact"] in {"serious", "critical"}
            ]
            assert serious == []


def test_a_page_without_scripts_still_says_all_that_is_text(chromium, gain_page):
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(gain_page.as_uri())
    assert page.locator("#way-file").is_visible()
    assert page.locator("#flags").is_visible()
    assert "need scripts" in page.locator("#plots").inner_text()
    context.close()


def test_five_hundred_trials_open_and_can_be_mailed(opened, tmp_path):
    path = written(big_run(500), tmp_path)
    assert path.stat().st_size < 5_000_000
    with opened(path) as page:
        assert page.locator("#trials tbody tr").count() == 500
        assert "max" in ask(page, "p99", 30)


def test_the_example_shows_every_chart(opened, example_page):
    with opened(example_page) as page:
        assert page.locator("[data-chart] svg").count() == 6
        assert "quickstart" in page.locator(".brand").inner_text()
