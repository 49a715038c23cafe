"""The sampler as anyone may use it: on a plain Optuna study, against a simulated server."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from tuner.search.correction import features_of
from tuner.search.model_sampler import CURVE, ModelSampler, Setting, from_json, to_json
from tuner.search.proposing import Candidate, Proposer, Seen
from tuner.search.space import Space, config_of
from tuner.simulate.curves import Curve, CurvePoint
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

optuna.logging.set_verbosity(optuna.logging.ERROR)

CHOICES = {
    "max_batch_size": (4, 8, 16, 32, 64, 128),
    "batch_timeout_micros": (0, 2000, 5000, 20_000),
    "num_batch_threads": (1, 2, 4),
}
SLO = Slo((("p99", 40.0),))
TRUTH = ServiceModel(
    sizes=(1, 8, 32, 128), run_ms=(4.0, 4.4, 7.0, 22.0), contention=0.8, delay_ms=0.6, spread=0.1
)
SETTING = Setting(SLO, cpus=4)
JUDGE = Workload.poisson(2000, seed=50)


def policy(params):
    return Policy.of(config_of(params), cpus=4)


def rate_of(params):
    return sustainable_rps(policy(params), TRUTH, SLO, JUDGE)


def curve_of(params):
    """Four loads around the sustainable rate, as the truth would show them."""
    rate = rate_of(params)
    points = []
    for share in (0.5, 0.9, 1.0, 1.2):
        outcome = JUDGE.at(share * max(rate, 50.0), policy(params), TRUTH)
        points.append(
            CurvePoint(
                throughput_rps=outcome.throughput_rps,
                offered_rps=share * max(rate, 50.0),
                percentiles_ms=tuple((q, outcome.percentile_ms(q)) for q in (0.5, 0.99)),
            )
        )
    return Curve(policy(params), tuple(points), rate)


def objective(trial, *, curves=True):
    params = {name: trial.suggest_categorical(name, values) for name, values in CHOICES.items()}
    if curves:
        trial.set_user_attr(CURVE, to_json(curve_of(params)))
    return rate_of(params)


@pytest.fixture(scope="module")
def best():
    space = [
        {"max_batch_size": size, "batch_timeout_micros": timeout, "num_batch_threads": threads}
        for size in CHOICES["max_batch_size"]
        for timeout in CHOICES["batch_timeout_micros"]
        for threads in CHOICES["num_batch_threads"]
    ]
    return max(map(rate_of, space))


def search(trials, *, seed=0, setting=SETTING, **how):
    study = optuna.create_study(
        direction="maximize", sampler=ModelSampler(CHOICES, setting, seed=seed)
    )
    study.optimize(lambda trial: objective(trial, **how), n_trials=trials)
    return study


def test_a_few_trials_come_within_5_percent_and_none_is_asked_for_twice(best):
    study = search(9)
    assert study.best_value > 0.95 * best
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 9


def test_without_curves_the_rates_alone_must_do(best):
    study = search(10, curves=False)
    assert study.best_value > 0.9 * best


def test_equal_seeds_ask_for_equal_points():
    one, other = (search(4, seed=3) for _ in "ab")
    assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]


def test_what_a_baseline_carried_has_to_be_surpassed():
    """No gain is seen in what is better than the search's own trials alone."""
    slow = {"max_batch_size": 4, "batch_timeout_micros": 0, "num_batch_threads": 1}
    own = Seen(curve_of(slow), rate_of(slow), features_of([slow], CHOICES)[0])
    default = curve_of({**slow, "max_batch_size": 128})
    middling = {**slow, "max_batch_size": 8}
    candidates = [Candidate(policy(middling), features_of([middling], CHOICES)[0])]
    gains = []
    for floor in (rate_of(slow), 3 * rate_of(middling)):
        seen = [own, Seen(default, floor, None)]
        gains.append(Proposer(SLO, ((1, 1.0),), 128, 0).propose(seen, candidates).gains[0])
    assert gains[1] < 0.2 * gains[0]


def test_the_defaults_are_learnt_from_as_the_point_that_acts_like_them():
    point = {"max_batch_size": 1000, "batch_timeout_micros": 0, "num_batch_threads": 4}
    attrs = {CURVE: to_json(curve_of(point))}
    default = create_trial(value=rate_of(point), user_attrs=attrs)
    seen = ModelSampler(CHOICES, SETTING)._seen(default)
    like = {**point, "max_batch_size": 128}
    assert seen.features == pytest.approx(features_of([like], CHOICES)[0])
    # Which mode the server has, nobody said.
    flagged = ModelSampler({**CHOICES, "flag.mode": ("a", "b")}, SETTING)
    assert flagged._seen(default).features is None


def test_what_it_is_told_of_turns_reaches_the_model():
    sampler = ModelSampler(CHOICES, replace(SETTING, in_turn=True), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=4)
    assert sampler.model.service.in_turn


@pytest.mark.slow
def test_where_rates_are_mere_chance_the_model_is_set_aside_and_says_so():
    said = []
    rng = np.random.default_rng(1)
    study = optuna.create_study(
        direction="maximize",
        sampler=ModelSampler(CHOICES, Setting(SLO, cpus=4, say=said.append), seed=0),
    )

    def chance(trial):
        for name, values in CHOICES.items():
            trial.suggest_categorical(name, values)
        return float(np.exp(rng.normal(6, 1.2)))

    study.optimize(chance, n_trials=10)
    assert any("set aside" in text for text in said)
    assert len(study.trials) == 10


def test_what_each_value_of_a_flag_does_is_learnt_beside_the_rest():
    choices = {**CHOICES, "flag.mode": ("plain", "eager", "fused")}
    factors = {"plain": 1.0, "eager": 1.4, "fused": 0.7}

    def rate(params):
        times = tuple(factors[params["flag.mode"]] * time for time in TRUTH.run_ms)
        return sustainable_rps(policy(params), replace(TRUTH, run_ms=times), SLO, JUDGE)

    def asked(trial):
        return rate({name: trial.suggest_categorical(name, to) for name, to in choices.items()})

    best = max(map(rate, Space(choices).points()))
    study = optuna.create_study(direction="maximize", sampler=ModelSampler(choices, SETTING))
    study.optimize(asked, n_trials=12)
    assert study.best_value > 0.95 * best


def test_a_jump_of_times_at_one_size_does_not_lead_it_astray():
    cliff = replace(TRUTH, sizes=(1, 16, 17, 128), run_ms=(4.0, 5.6, 11.0, 26.0))

    def rate(params):
        return sustainable_rps(policy(params), cliff, SLO, JUDGE)

    def asked(trial):
        return rate({name: trial.suggest_categorical(name, to) for name, to in CHOICES.items()})

    best = max(map(rate, Space(CHOICES).points()))
    study = optuna.create_study(direction="maximize", sampler=ModelSampler(CHOICES, SETTING))
    study.optimize(asked, n_trials=12)
    assert study.best_value > 0.95 * best


def test_what_is_to_be_skipped_is_not_proposed():
    study = optuna.create_study(direction="maximize", sampler=ModelSampler(CHOICES, SETTING))
    points = list(Space(CHOICES).points())
    study.sampler.skipped = frozenset(
        config_of(point).id for point in points if point["num_batch_threads"] != 2
    )
    study.optimize(objective, n_trials=4)
    assert {trial.params["num_batch_threads"] for trial in study.trials} == {2}


@pytest.mark.slow
def test_points_like_those_that_crashed_are_avoided():
    study = optuna.create_study(direction="maximize", sampler=ModelSampler(CHOICES, SETTING))
    crashes = 0
    for _ in range(9):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, to) for name, to in CHOICES.items()}
        if params["num_batch_threads"] == 1:  # where the best lies
            crashes += 1
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr(CURVE, to_json(curve_of(params)))
            study.tell(trial, rate_of(params))
    assert crashes <= 5


def test_a_curve_survives_json():
    curve = curve_of({"max_batch_size": 8, "batch_timeout_micros": 0, "num_batch_threads": 1})
    assert from_json(json.loads(json.dumps(to_json(curve)))) == curve
