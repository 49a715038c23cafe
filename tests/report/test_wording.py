from dataclasses import replace

import pytest
from literal_runs import (
    empty_run,
    failed_run,
    figures,
    gain_run,
    infeasible_run,
    invalid_run,
    one_trial_run,
    with_verdict,
)

from tuner.report import headline
from tuner.report.wording import clip, milliseconds, number, share, signed_percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0"),
        (0.1254, "0.125"),
        (1.2345, "1.23"),
        (57.26, "57.3"),
        (549.4, "549"),
        (1234.0, "1,234"),
        (123456.0, "123,000"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_units_do_not_break_from_their_number():
    assert milliseconds(57.26) == "57.3\u00a0ms"
    assert share(0.025) == "2.5\u00a0%"
    assert signed_percent(-3.14) == "−3.1\u00a0%"  # noqa: RUF001
    assert signed_percent(182.4) == "+182\u00a0%"


def test_clip_marks_the_cut():
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"


def test_a_gain_names_both_rates_and_its_interval():
    found = headline(gain_run())
    assert found.tone == "good"
    assert found.text == "+150\u00a0% load over the server's default."
    assert "500/s instead of 200/s within p99\u00a0≤\u00a060\u00a0ms" in found.detail
    assert "95\u00a0% interval of the gain +141\u00a0% to +160\u00a0%" in found.detail
    assert "+150" not in found.detail


def test_a_gain_over_a_default_that_carries_nothing_has_no_percentage():
    found = headline(with_verdict("gain", gain=None, default=figures(0.0, None, None)))
    assert found.text == "A proven gain: the default keeps the promise at no load that was tried."


REFUTED = {"percent": -17.6, "low": -23.8, "high": -11.0}


def test_a_gain_before_the_final_is_called_unconfirmed():
    gain = {"percent": 150.0, "low": None, "high": None}
    assert "+150\u00a0% (not confirmed)" in headline(with_verdict("undecided", gain=gain)).detail


def test_a_recommended_default_that_carries_nothing_is_no_answer():
    kept = replace(infeasible_run(), recommendation={"recommended": figures(0.0, None, None)})
    assert headline(kept).text == "No configuration met the promise."


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (empty_run(), "Nothing has been measured yet."),
        (one_trial_run(), "No recommendation yet."),
        (with_verdict("undecided"), "Provisional: the best so far is not confirmed."),
        (infeasible_run(), "No configuration met the promise."),
        (invalid_run(), "No measurement can be trusted."),
        (failed_run(), "No configuration could be measured."),
        (with_verdict("tie"), "No proven gain: keep the default."),
        (with_verdict("none"), "No proven gain: keep the default."),
        (with_verdict("none", gain=REFUTED), "Keep the default: it carries the most."),
        (with_verdict("undecided", recommended=None), "No recommendation yet."),
    ],
)
def test_nothing_but_a_gain_claims_one(run, text):
    found = headline(run)
    assert found.text == text
    assert found.tone != "good"
