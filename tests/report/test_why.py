from dataclasses import replace

from literal_runs import BEST, deployed_run, gain_run, infeasible_run, level, trial

from tuner.records import Config
from tuner.report.trust import trust
from tuner.report.why import why


def said(run, name):
    return " ".join(next(item for item in why(run) if item.name == name).sentences)


def test_the_recommended_comes_first_and_says_what_gave_way():
    run = replace(gain_run(), environment={"cpus": 2, "server_cpus": [1]})
    found = why(run)
    assert [item.name for item in found][:2] == ["recommended", "default"]
    assert found[0].load == "at 500/s, its sustainable rate"
    assert (
        "At 600/s, where the promise is missed, compute is the limit: the server uses 1.00 of its "
        "1 core, as it does at 210/s already." in said(run, "recommended")
    )


def test_one_step_away_is_what_was_measured_there_and_nothing_else():
    step = Config(replace(BEST.batching, num_batch_threads=4))
    far = Config(replace(BEST.batching, num_batch_threads=8, max_batch_size=64))
    run = gain_run()
    others = [
        trial(
            number,
            "sampler",
            config,
            [level(400, 50.0), level(450, 70.0, feasible=False)],
            reference=0,
        )
        for number, config in ((5, step), (6, far))
    ]
    text = said(replace(run, trials=(*run.trials, *others)), "recommended").replace("\u00a0", " ")
    assert "With num_batch_threads 4 instead of 2 it carried 400/s instead of 500/s" in text
    assert "(−20 %)" in text  # noqa: RUF001
    assert "instead of 32" not in text


def test_a_lower_bound_is_no_ratio():
    step = Config(replace(BEST.batching, num_batch_threads=4))
    run = gain_run()
    cut = trial(5, "sampler", step, [level(300, 50.0), level(400, 50.0, valid=False)], reference=0)
    text = said(replace(run, trials=(*run.trials, cut)), "recommended")
    assert "it carried 300/s or more (undecided above) in the search, instead of 500/s" in text
    assert "(−40" not in text  # noqa: RUF001


def test_a_run_without_answer_has_nothing_to_explain_but_what_failed():
    assert [item.name for item in why(infeasible_run())] == ["default", "batching off"]


def test_the_search_is_held_against_the_final():
    facts = {fact.name: fact.value.replace("\u00a0", " ") for fact in trust(deployed_run()).facts}
    assert facts["Search against final"] == "500/s, then 480/s (−4.0 %)"  # noqa: RUF001
    assert "Fresh starts of the recommended" not in facts  # there was one
