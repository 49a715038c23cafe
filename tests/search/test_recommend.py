import json
from dataclasses import replace

import pytest
from trials import DEFAULT, OFF, batched, crashed, level, trial

from tuner.batching import BatchingParameters
from tuner.records import Doubt, ServerIdentity
from tuner.search.decide import decide
from tuner.search.queue_bound import deployable
from tuner.search.ranking import choose, simplicity
from tuner.search.recommend import file_text, recommendation
from tuner.slo import Slo

SLO = Slo((("p99", 60.0),), max_error_rate=0.001)
SERVER = ServerIdentity("embedded", "tuner 0.1.0")
BEST = batched(32, timeout=2000)
SEARCH = (
    trial(0, "off", OFF, 100.0),
    trial(1, "default", DEFAULT, 200.0),
    trial(2, "guide", batched(8), 250.0),
    trial(3, "sampler", BEST, 400.0),
    crashed(4, "sampler", batched(64)),
)
"""Off carries 100 requests/s, the default 200, the best 400."""


def final(winner, rates, records=SEARCH, step=1.01):
    """Blocks of the final: (winner's rate, default's rate) each, known to within `step`."""
    number = len(records)
    for block, (ours, default) in enumerate(rates):
        yield trial(number + 2 * block, "final", winner, ours, block=block, step=step)
        yield trial(number + 2 * block + 1, "final", DEFAULT, default, block=block, step=step)


def decided(records):
    return decide(records, SLO)


def test_the_highest_rate_is_chosen():
    assert choose(SEARCH).config == BEST


@pytest.mark.parametrize(
    ("rate", "chosen"),
    [
        (208.0, BEST),  # 4 % may be noise: the final finds out
        (205.0, DEFAULT),  # 2.5 % is a tie
    ],
)
def test_ties_go_to_the_default(rate, chosen):
    records = (*SEARCH[:2], trial(2, "sampler", BEST, rate))
    assert choose(records).config == chosen


def test_the_final_and_what_is_not_proven_are_no_candidates():
    records = (
        trial(0, "default", DEFAULT, 200.0),
        trial(1, "sampler", batched(8), None),
        trial(2, "sampler", batched(16), 0.0),
        trial(3, "final", BEST, 400.0, block=0),
    )
    assert choose(records).config == DEFAULT
    assert choose(records[1:]) is None


def test_simplicity_is_distance_from_the_default():
    ranked = [DEFAULT, OFF, batched(512), batched(64), batched(64, timeout=5000)]
    assert [simplicity(config) for config in ranked] == sorted(map(simplicity, ranked))


def test_nothing_is_claimed_before_the_final():
    decision = decided(SEARCH)
    assert (decision.verdict, decision.trial.config) == ("undecided", BEST)
    assert decision.gain.percent == pytest.approx(100.0)
    assert decision.gain.low is None


@pytest.mark.parametrize("open_ended", [0, 1, 3])
def test_no_ratio_is_given_of_a_rate_that_is_but_a_lower_bound(open_ended):
    records = [
        replace(record, levels=record.levels[:1]) if record.number == open_ended else record
        for record in SEARCH
    ]
    decision = decided(records)
    assert (decision.verdict, decision.trial.config) == ("undecided", BEST)
    assert (decision.gain is None) == (records[open_ended].config in {BEST, DEFAULT})


def test_a_gain_is_proven_by_blocks():
    winner = deployable(SEARCH[3], SLO)
    rates = [(400.0, 200.0), (396.0, 204.0), (410.0, 202.0)]
    decision = decided((*SEARCH, *final(winner, rates)))
    assert (decision.verdict, decision.config) == ("gain", winner)
    assert 0 < decision.gain.low < decision.gain.percent < decision.gain.high
    assert decision.gain.percent == pytest.approx(99, abs=2)
    assert "3 interleaved blocks" in decision.why


def test_the_finals_median_block_stands_for_a_configuration():
    winner = deployable(SEARCH[3], SLO)
    rates = [(410.0, 200.0), (396.0, None), (400.0, 202.0)]
    decision = decided((*SEARCH, *final(winner, rates)))
    shown = [
        decision.standing_for(winner, SEARCH[3]),
        decision.standing_for(DEFAULT, SEARCH[1]),
        decision.standing_for(OFF, SEARCH[0]),
    ]
    assert [(record.role, record.sustainable_rps) for record in shown] == [
        ("final", 400.0),
        ("final", 200.0),
        ("off", 100.0),
    ]


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ([(202.0, 200.0), (199.0, 200.0), (200.0, 200.0)], "tie"),
        ([(150.0, 200.0), (400.0, 200.0), (260.0, 200.0)], "none"),  # scattered: nothing proven
        ([(400.0, 200.0)], "none"),  # a single block has no interval
        ([(0.0, 200.0), (400.0, 200.0)], "none"),  # once it did not hold at all
        ([(150.0, 200.0), (151.0, 200.0), (152.0, 200.0)], "none"),  # worse is never recommended
    ],
)
def test_without_proof_the_default_is_kept(rates, verdict):
    winner = deployable(SEARCH[3], SLO)
    decision = decided((*SEARCH, *final(winner, rates)))
    assert (decision.verdict, decision.config) == (verdict, DEFAULT)


def test_a_default_that_carries_the_most_is_no_tie():
    winner = deployable(SEARCH[3], SLO)
    rates = [(150.0, 200.0), (151.0, 200.0), (152.0, 200.0)]
    decision = decided((*SEARCH, *final(winner, rates)))
    assert decision.gain.refuted
    assert decision.why.startswith("no configuration tried carries more within the SLO")
    assert f"differs by {decision.gain.describe()}" in decision.why


def test_a_small_gain_is_proven_by_fine_steps_alone():
    winner = deployable(SEARCH[3], SLO)
    rates = [(214.0, 200.0), (213.0, 201.0), (215.0, 200.5)]
    fine, coarse = (decided((*SEARCH, *final(winner, rates, step=step))) for step in (1.01, 1.15))
    assert (fine.verdict, coarse.verdict) == ("gain", "none")
    assert fine.gain.percent == coarse.gain.percent
    assert coarse.gain.low < 0 < fine.gain.low


def test_a_default_that_is_best_needs_no_final():
    decision = decided((*SEARCH[:2], trial(2, "sampler", BEST, 150.0)))
    assert (decision.verdict, decision.config) == ("none", DEFAULT)


def test_a_default_that_was_lucky_in_the_search_is_beaten_in_the_final():
    records = (*SEARCH[:1], trial(1, "default", DEFAULT, 420.0), SEARCH[3])
    assert decided(records).verdict == "none"
    winner = deployable(SEARCH[3], SLO)
    decision = decided(
        (*records, *final(winner, [(400.0, 300.0), (396.0, 304.0), (404.0, 299.0)]))
    )
    assert (decision.verdict, decision.config) == ("gain", winner)


def test_a_default_that_holds_nowhere_is_beaten_by_whatever_holds():
    records = (trial(0, "off", OFF, 0.0), trial(1, "default", DEFAULT, 0.0), SEARCH[3])
    winner = deployable(SEARCH[3], SLO)
    decision = decided((*records, *final(winner, [(400.0, 0.0), (390.0, 0.0)])))
    assert (decision.verdict, decision.config, decision.gain) == ("gain", winner, None)
    assert "at no load with the server's defaults" in decision.why


def test_batching_off_may_win():
    records = (
        trial(0, "off", OFF, 400.0),
        trial(1, "default", DEFAULT, 200.0),
        trial(2, "sampler", BEST, 210.0),
    )
    decision = decided((*records, *final(OFF, [(400.0, 200.0), (396.0, 204.0), (410.0, 202.0)])))
    assert (decision.verdict, decision.config) == ("gain", OFF)
    text = file_text(decision, scenario="s", server=SERVER, slo=SLO, when="today")
    assert "# Batching is best left OFF" in text
    BatchingParameters.from_text(text).check()


def test_where_nothing_holds_the_default_is_kept_and_it_is_said():
    records = (
        trial(0, "off", OFF, 0.0),
        trial(1, "default", DEFAULT, 0.0),
        trial(2, "sampler", BEST, 0.0),
    )
    decision = decided(records)
    assert (decision.verdict, decision.config, decision.gain) == ("none", DEFAULT, None)
    assert "no configuration met the SLO (p99 <= 60 ms, errors <= 0.1 %)" in decision.why
    assert decided(records[:1]).verdict == "undecided"


def test_where_nothing_holds_the_nearest_is_named():
    records = (trial(0, "off", OFF, 0.0), trial(1, "default", DEFAULT, 0.0))
    slow = level(100.0, p99_ms=75.0, held=False)
    slower = level(100.0, p99_ms=140.0, held=False)
    records = tuple(
        replace(record, levels=(shown,))
        for record, shown in zip(records, (slower, slow), strict=True)
    )
    assert decided(records).why == (
        "no configuration met the SLO (p99 <= 60 ms, errors <= 0.1 %) at any load tried; the "
        f"nearest is {DEFAULT.label()} with a p99 of 75 ms at 100/s"
    )


def test_a_client_at_its_end_is_named_as_the_limit():
    note = Doubt("client-limited", "the load generator was at its end", "more processes")
    best = replace(SEARCH[3], notes=(note,))
    assert decided((*SEARCH[:3], best)).why.endswith(
        "; the load generator was at its end there, so it may carry more"
    )
    default = replace(SEARCH[1], notes=(note,))
    assert "every load that this load generator can drive" in decided((default, best)).why
    late = replace(trial(1, "default", DEFAULT, None), notes=(note,))
    assert "load generator" not in decided((late, SEARCH[3])).why, "nothing was decided there"


def test_nothing_is_decided_while_nothing_is_measured():
    assert decided(()) is None
    assert decided((crashed(0, "off", OFF), crashed(1, "default", DEFAULT))) is None


def four(rates):
    """Blocks of winner, runner-up, default and off."""
    configs = (deployable(SEARCH[3], SLO), deployable(SEARCH[2], SLO), DEFAULT, OFF)
    for block, row in enumerate(rates):
        for at, (config, rate) in enumerate(zip(configs, row, strict=True)):
            yield trial(len(SEARCH) + 4 * block + at, "final", config, rate, block=block)


def test_a_runner_up_that_proves_more_is_recommended():
    rates = [
        (210.0, 260.0, 200.0, 99.0),
        (190.0, 262.0, 202.0, 101.0),
        (205.0, 259.0, 201.0, 98.0),
    ]
    decision = decided((*SEARCH, *four(rates)))
    assert decision.verdict == "gain"
    assert decision.config == deployable(SEARCH[2], SLO)
    assert [found.contender.arm for found in decision.findings] == [
        "winner", "default", "runner-up", "off",
    ]  # fmt: skip
    assert decision.findings[3].gain.high < 0


def test_of_two_that_are_proven_alike_the_simplest_is_recommended():
    rates = [
        (300.0, 301.0, 200.0, 99.0),
        (301.0, 299.0, 202.0, 101.0),
        (299.0, 300.0, 199.0, 98.0),
    ]
    decision = decided((*SEARCH, *four(rates)))
    assert decision.verdict == "gain"
    chosen = decision.config.batching
    assert simplicity(batched(32, timeout=2000)) < simplicity(batched(8))
    assert (chosen.max_batch_size, chosen.batch_timeout_micros) == (32, 2000)


def test_two_candidates_have_to_prove_more_than_one():
    """The same blocks of winner and default, with and without a runner-up beside them."""
    rates = [(230.0, 200.0, 200.0, 99.0), (216.0, 201.0, 200.0, 99.0), (224.0, 199.0, 200.0, 98.0)]
    alone = [record for record in four(rates) if record.config != deployable(SEARCH[2], SLO)]
    assert decided((*SEARCH, *alone)).gain.low > 0
    assert decided((*SEARCH, *four(rates))).verdict == "none"


def test_invalid_blocks_do_not_count():
    winner = deployable(SEARCH[3], SLO)
    rates = [(400.0, 200.0), (396.0, None), (410.0, 202.0), (None, 200.0), (404.0, 201.0)]
    decision = decided((*SEARCH, *final(winner, rates)))
    assert decision.verdict == "gain"
    assert "3 interleaved blocks" in decision.why


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([(21.0, 27.0), (31.0, 27.0)], "2 blocks of the final are too few to tell"),
        ([(150.0, 200.0), (400.0, 200.0), (260.0, 200.0)], "3 blocks of the final are too few"),
    ],
)
def test_blocks_that_tell_nothing_are_said_to_be_too_few_and_no_interval_is_shown(rates, said):
    decision = decided((*SEARCH, *final(deployable(SEARCH[3], SLO), rates)))
    assert said in decision.why
    assert "--deadline" in decision.why
    assert (decision.gain.low, decision.gain.high) == (None, None)
    text = file_text(decision, scenario="s", server=SERVER, slo=SLO, when="today")
    assert "interval" not in text


def test_a_deployed_queue_is_bounded_by_what_it_means():
    """60 ms of rows leaving at 440 a second are 26.4 rows: one batch of 32, and one that fills."""
    assert deployable(SEARCH[3], SLO).batching.max_enqueued_batches == 2
    eight = trial(0, "sampler", batched(8), 400.0)
    assert deployable(eight, SLO).batching.max_enqueued_batches == 5
    threads = trial(0, "sampler", batched(32, threads=4), 400.0)
    assert deployable(threads, SLO).batching.max_enqueued_batches == 5
    assert deployable(SEARCH[0], SLO) == OFF
    assert deployable(SEARCH[1], SLO) == DEFAULT


def test_the_object_for_scripts_is_complete_and_plain():
    winner = deployable(SEARCH[3], SLO)
    records = (*SEARCH, *final(winner, [(400.0, 200.0), (380.0, 204.0), (410.0, 202.0)]))
    decision = decided(records)
    found = recommendation(
        decision, records, scenario="s", server=SERVER, slo=SLO, flags={"enable_batching": "true"}
    )
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "schema_version", "scenario", "config_id", "server", "slo", "verdict", "why",
        "parameters", "flags", "recommended", "default", "off", "gain", "final",
        "overload", "noise", "confidence",
    }  # fmt: skip
    assert found["verdict"] == "gain"
    assert found["slo"] == {"p99_ms": 60.0, "max_error_rate": 0.001, "confidence": 0.95}
    assert BatchingParameters.from_dict(found["parameters"]) == winner.batching
    assert found["recommended"] == {
        "sustainable_rps": 400.0,  # the final's median block
        "p99_ms": 20.0,
        "throughput_rps": 400.0,
        "rows_per_batch": None,
        "valid": True,
    }
    assert found["default"]["sustainable_rps"] == 202.0
    assert found["off"]["sustainable_rps"] == 100.0
    assert set(found["gain"]) == {"percent", "low", "high"}
    assert [item["arm"] for item in found["final"]] == ["winner", "default"]
    assert found["final"][0]["rates_rps"] == [400.0, 380.0, 410.0]
    assert found["final"][0]["gain"] == found["gain"]
    assert found["final"][0]["measuring_s"] == 4 * 12.0
    assert found["noise"]["rates_rps"] == [200.0]
    assert found["noise"]["drifts"] == []


def test_a_failed_baseline_is_shown_as_not_valid():
    records = (trial(0, "off", OFF, 100.0), crashed(1, "default", DEFAULT), SEARCH[3])
    decision = decided(records)
    found = recommendation(decision, records, scenario="s", server=SERVER, slo=SLO, flags={})
    assert found["default"]["valid"] is False
    assert found["default"]["sustainable_rps"] is None
    assert found["verdict"] == "undecided"


def test_the_file_says_why_and_is_one_the_server_accepts():
    winner = deployable(SEARCH[3], SLO)
    for records in (
        SEARCH,
        (*SEARCH, *final(winner, [(400.0, 200.0), (396.0, 204.0), (404.0, 202.0)])),
    ):
        decision = decided(records)
        text = file_text(decision, scenario="s", server=SERVER, slo=SLO, when="2026-01-01")
        header = [line for line in text.splitlines() if line.startswith("#")]
        assert header[0] == "# Recommended by tuner for s, 2026-01-01."
        assert f"# Verdict: {decision.verdict}." in header[1]
        assert "# SLO: p99 <= 60 ms, errors <= 0.1 %." in header
        assert text.count("95 % interval") == (decision.verdict == "gain")
        assert text.count(f"{decision.gain.percent:+.1f} %") == 1
        read = BatchingParameters.from_text(text)
        read.check()
        assert read == winner.batching


def test_a_shown_level_need_not_carry_a_p99():
    few = replace(SEARCH[1], levels=(level(200.0, p99_ms=None),))
    decision = decided((few,))
    found = recommendation(decision, (few,), scenario="s", server=SERVER, slo=SLO, flags={})
    assert found["default"]["p99_ms"] is None


def test_a_deadline_before_anything_was_decided_recommends_nothing():
    cut = Doubt("cut-short", "the deadline came", "more time")
    decision = decided((trial(0, "off", OFF, None, notes=(cut,)),))
    assert decision.verdict == "undecided"
    assert decision.why.startswith("the deadline came before anything was decided; resume")
    assert_nothing_is_recommended(decision, ())


def assert_nothing_is_recommended(decision, records):
    """In the file, and for programs."""
    assert not decision.recommends
    text = file_text(decision, records, scenario="s", server=SERVER, slo=SLO, when="2026-01-01")
    assert text.startswith("# Written by tuner for s")
    assert "Nothing is recommended yet: this file holds the server's defaults" in text
    assert "best left OFF" not in text
    BatchingParameters.from_text(text).check()
    flags = {"enable_batching": "true"}
    found = recommendation(decision, records, scenario="s", server=SERVER, slo=SLO, flags=flags)
    assert (found["config_id"], found["recommended"]) == (None, None)
    assert (found["parameters"], found["flags"]) == ({}, {})
    assert found["verdict"] == "undecided"


@pytest.mark.parametrize(
    "records",
    [
        SEARCH[:1],
        (SEARCH[0], trial(1, "default", DEFAULT, None)),  # measured, but not to be trusted
        (trial(0, "off", OFF, 0.0),),
        (trial(0, "off", OFF, None), trial(1, "default", DEFAULT, None)),
    ],
)
def test_while_there_is_nothing_to_hold_batching_off_against_nothing_is_recommended(records):
    assert_nothing_is_recommended(decided(records), records)


@pytest.mark.parametrize(
    ("records", "config"),
    [
        (SEARCH[:2], DEFAULT),
        ((SEARCH[0], trial(1, "default", DEFAULT, 0.0)), OFF),
        ((SEARCH[0], crashed(1, "default", DEFAULT)), OFF),  # with batching the server dies
        ((SEARCH[0], trial(1, "default", DEFAULT, None), SEARCH[2]), SEARCH[2].config),
    ],
)
def test_the_best_so_far_is_recommended_once_there_are_two(records, config):
    decision = decided(records)
    assert decision.recommends
    assert decision.trial.config == config
