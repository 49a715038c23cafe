import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from literal_runs import (
    BEST,
    DEFAULT,
    EVIL,
    empty_run,
    evil_run,
    failed_run,
    figures,
    gain_run,
    infeasible_run,
    invalid_run,
    off_run,
    one_trial_run,
    with_verdict,
)

from tuner.errors import StoreError
from tuner.records import Overload, ServerIdentity
from tuner.report import write_report
from tuner.report.page import flatten, render_page
from tuner.report.trust import trial_reasons, trust

VOID = {"meta", "br", "img", "link", "use", "path", "rect", "input"}


class Outline(HTMLParser):
    """Collects tags, attributes and ids, and checks that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.attributes, self.open = set(), [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def without_scripts(page):
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)


def words(page):
    page = re.sub(r"<style>.*?</style>", "", without_scripts(page), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    files = write_report(gain_run(), directory)
    return directory, files, files[0].read_text(encoding="utf-8")


def test_report_and_plots_are_written_whole(written):
    directory, files, _ = written
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*.*"))
    assert names == sorted(str(path.relative_to(directory)) for path in files)
    assert {path.suffix for path in files} == {".html", ".svg", ".png"}
    assert all(path.stat().st_size > 1000 for path in files)


def test_the_page_answers_first(written):
    text = words(written[2])
    position = [
        text.index(part)
        for part in ("+150 % load", "Recommended 500", "max_batch_size {", "Embedded server")
    ]
    assert position == sorted(position)
    assert "--grpc_max_threads=256" in text
    assert "p99 ≤ 60 ms" in text
    assert position[-1] < text.index("All trials")


def test_the_page_is_well_formed_and_needs_nothing_from_outside(written):
    page = written[2]
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert "http://" not in without_scripts(page)
    assert "https://" not in without_scripts(page)
    assert outline.tags.isdisjoint({"link", "img", "iframe", "object", "embed"})
    assert not re.search(r"<script[^>]*\bsrc=", page)
    references = [value for name, value in outline.attributes if name in {"href", "src"}]
    assert references
    assert all(value[0] == "#" and value[1:] in outline.ids for value in references)
    assert "@import" not in page
    assert all(target[0] == "#" for target in re.findall(r"url\(([^)]+)\)", without_scripts(page)))


def test_the_policy_admits_the_pages_own_scripts_and_no_other(written):
    page = written[2]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    admitted = re.search(r"script-src ([^;]*);", html.unescape(policy))[1].split()
    code = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = [hashlib.sha256(text.encode()).digest() for text in code]
    assert admitted == [f"'sha256-{base64.b64encode(value).decode()}'" for value in hashes]
    assert len(code) == 4
    assert "default-src 'none'" in html.unescape(policy)
    assert "unsafe-eval" not in policy


def test_all_colours_of_the_plots_follow_the_scheme_of_the_page(written):
    page = written[2]
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    styles = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL)[1]
    light, dark = styles.split("prefers-color-scheme: dark", 1)
    used = set(re.findall(r"var\((--[\w-]+)\)", drawings))
    assert {"--recommended", "--default", "--off", "--ink"} <= used
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_whatever_a_run_says_is_text_and_not_markup(tmp_path):
    page = write_report(evil_run(), tmp_path)[0].read_text(encoding="utf-8")
    assert "<script>window" not in page
    assert page.count("<script") == page.count("</script>") == 6
    assert (
        "&lt;script&gt;window.stolen=1;alert(1)&lt;/script&gt; &#34;q&#34; &#39;s&#39; &amp;amp;"
        in page
    )
    Outline(page)


def test_long_texts_are_folded_away():
    page = render_page(failed_run(EVIL), ())
    assert "<details><summary><bdi>&lt;script&gt;" in page
    assert page.count("W" * 10_000) == 1


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (empty_run(), "No trial has finished."),
        (one_trial_run(), "Nothing yet No configuration is recommended"),
        (off_run(), "Batching off is recommended"),
        (infeasible_run(), "p99 was over 60 ms"),
        (invalid_run(), "sent 9 ms late at p99"),
        (failed_run(), "the server exited with code 255"),
        (with_verdict("undecided", default=None, off=None, gain=None), "Provisional"),
        (with_verdict("tie"), "keep the default"),
    ],
)
def test_every_kind_of_run_has_a_sensible_page(run, expected):
    page = render_page(run, ())
    Outline(page)
    assert expected in words(page)
    assert not re.search(r"\bNone(?! of|: every)", words(page))


def test_the_server_that_was_measured_is_named_in_large():
    run = gain_run()
    docker = replace(run, server=ServerIdentity("docker", "2.19.1", "tensorflow/serving:2.19.1"))
    assert '<p class="large">TensorFlow Serving in Docker</p>' in render_page(docker, ())
    assert '<p class="large">Embedded server</p>' in render_page(run, ())


def test_a_server_on_another_host_is_said_to_be_far():
    far = ServerIdentity("docker", "2.19.1", "x:1", through="an ssh tunnel to me@there")
    page = words(render_page(replace(gain_run(), server=far), ()))
    assert "reached through an ssh tunnel to me@there" in page
    assert "every latency here includes the network and the tunnel" in page
    assert "on the measuring host" not in page


def test_a_figure_that_is_not_valid_says_so():
    run = gain_run()
    doubtful = {**run.recommendation["default"], "valid": False}
    page = render_page(with_verdict("gain", default=doubtful), ())
    assert words(page).count("not valid") == 1


def test_plots_of_an_earlier_report_do_not_stay(tmp_path):
    write_report(one_trial_run(), tmp_path)
    assert (tmp_path / "plots" / "front.svg").exists()
    write_report(empty_run(), tmp_path)
    assert list((tmp_path / "plots").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(StoreError, match="plots"):
        write_report(one_trial_run(), tmp_path)


def test_trust_counts_doubts_and_valid_measurements():
    found = trust(gain_run())
    facts = {fact.name: fact.value.replace("\u00a0", " ") for fact in found.facts}
    assert facts["Valid measurements"] == "9 of 10 (90 %)"
    assert facts["Loops"] == "9 open, 1 closed"
    assert [(item.doubt.code, item.count) for item in found.doubts] == [("generator-late", 1)]


def test_the_reason_of_a_trial_is_said_once():
    assert trial_reasons(invalid_run()) == {0: "sent 9 ms late at p99"}
    assert trial_reasons(gain_run()) == {}


def test_a_run_without_an_answer_does_not_show_its_baseline_as_recommended():
    nothing = {
        "recommended": figures(None, None, None),
        "default": figures(None, None, None),
        "config_id": DEFAULT.id,
        "why": "nothing held",
    }
    run = replace(invalid_run(), recommendation=nothing, batching_text="max_batch_size {}")
    page = render_page(run, ())
    assert "To deploy until there is an answer" in page
    assert "Nothing held." in page
    assert "requests/s sustained" not in page
    assert 'class="recommended"' not in page


def test_flatten_names_nested_values():
    assert list(flatten({"a": {"b": 1, "c": [2, 3]}, "d": None})) == [
        ("a.b", "1"),
        ("a.c", "2, 3"),
        ("d", "–"),  # noqa: RUF001
    ]


def test_the_recommended_trial_is_marked_in_the_table():
    page = render_page(gain_run(), ())
    row = re.search(r'<tr class="recommended">.*?</tr>', page, flags=re.DOTALL)[0]
    assert BEST.id in row


def test_loads_carried_beyond_the_rate_are_one_fact_that_names_their_trials():
    run = gain_run()
    carried = Overload(1.5, 12.5, 12.5, 0.0, 0.0, 300.0, 0.0, "carries", 400)
    tests = [
        replace(run.trials[-1], number=number, role="overload", overload=(carried,))
        for number in (20, 21)
    ]
    facts = {fact.name: fact for fact in trust(replace(run, trials=(*run.trials, *tests))).facts}
    assert (
        facts["Carried beyond the rate"].value == "150\u00a0% in trial 20, 150\u00a0% in trial 21"
    )
    assert "may be higher" in facts["Carried beyond the rate"].meaning
    assert "Carried beyond the rate" not in {fact.name for fact in trust(run).facts}
