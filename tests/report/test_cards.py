from dataclasses import replace

from literal_runs import BEST, OFF, figures, gain_run, level, trial

from tuner.report.cards import cards
from tuner.report.trust import trust


def test_the_cards_leave_the_gain_to_the_headline():
    found = cards(gain_run())
    assert [card.look for card in found] == ["recommended", "default", "off"]
    assert [bool(card.label) for card in found] == [True, True, False], "off is its own name"
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


def test_a_start_of_the_final_that_was_left_undecided_above_is_said_to_be():
    ends = ([level(480, 50.0), level(510, 61.0, feasible=False)], [level(490, 50.0)])
    final = [
        trial(4 + at, "final", BEST, levels, reference=0, block=at)
        for at, levels in enumerate(ends)
    ]
    run = gain_run()
    run = replace(run, trials=(*run.trials, *final))
    found = dict(next(card for card in cards(run) if card.look == "recommended").lines)
    assert found["measured"] == "480 to 490/s in 2 fresh starts, 1 undecided above"
    facts = {fact.name: fact.value for fact in trust(run).facts}
    assert facts["Lower bounds in the final"] == "1 of 2 starts (trial 5)"
