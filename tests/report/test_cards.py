from dataclasses import replace

from literal_runs import OFF, figures, gain_run

from tuner.report.cards import cards


def test_the_cards_leave_the_gain_to_the_headline():
    found = cards(gain_run())
    assert [card.look for card in found] == ["recommended", "default", "off"]
    assert not any("gain" in term for card in found for term, _ in card.lines)


def test_batching_off_is_set_beside_the_default_where_the_final_had_both():
    off = {
        "arm": "off",
        "config_id": OFF.id,
        "rates_rps": [100.0, 101.0],
        "gain": {"percent": -50.0, "low": -52.0, "high": -48.0},
        **figures(100.0, 40.0, None),
    }
    run = gain_run()
    run = replace(run, recommendation={**run.recommendation, "final": [off]})
    lines = dict(next(card for card in cards(run) if card.look == "off").lines)
    assert lines["beside the default"] == (
        "−50\u00a0% (95\u00a0% interval −52\u00a0% to −48\u00a0%)"  # noqa: RUF001
    )
