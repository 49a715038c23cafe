import optuna
import pytest
from trials import DEFAULT, OFF, crashed, trial

from tuner.errors import InputError, StoreError
from tuner.search.model_sampler import Setting
from tuner.search.sampler import Sampler
from tuner.search.space import Space, config_of, point_of
from tuner.slo import Slo

SMALL = Space(
    {
        "max_batch_size": (8, 32),
        "batch_timeout_micros": (0, 1000, 5000),
        "num_batch_threads": (1, 2),
        "allowed_batch_sizes": ("any",),
    }
)
LARGE = Space(
    {
        "max_batch_size": (4, 8, 16, 32, 64, 128),
        "batch_timeout_micros": (0, 1000, 2000, 5000, 10_000),
        "num_batch_threads": (1, 2),
        "allowed_batch_sizes": ("any", "powers_of_two"),
    }
)
BASELINES = (trial(0, "off", OFF, 100.0), trial(1, "default", DEFAULT, 0.0))


def rate_of(point):
    """A server that likes large batches and short waits."""
    return 100.0 + point["max_batch_size"] - point["batch_timeout_micros"] / 500


def measure(number, point):
    return trial(number, "sampler", config_of(point), rate_of(point))


def run(sampler, *, trials, outcome=measure):
    """Ask and tell; return the points in order."""
    sampler.tell(BASELINES)
    asked = []
    while len(asked) < trials and (point := sampler.ask()) is not None:
        asked.append(point)
        sampler.tell([outcome(len(asked) + 1, point)])
    return asked


SETTING = Setting(Slo((("p99", 60.0),)), cpus=2)


@pytest.mark.parametrize("name", ["auto", "tpe", "random", "nsga2", "grid"])
def test_no_point_is_proposed_twice_and_the_end_is_known(name):
    asked = run(Sampler(SMALL, name=name, seed=3, database=None, setting=SETTING), trials=100)
    assert len(asked) == SMALL.size
    assert len({config_of(point).id for point in asked}) == SMALL.size


@pytest.mark.parametrize("outcome", ["failed", "infeasible", "invalid"])
def test_a_search_in_which_nothing_holds_goes_on(outcome):
    def told(number, point):
        if outcome == "failed":
            return crashed(number, "sampler", config_of(point))
        rate = 0.0 if outcome == "infeasible" else None
        return trial(number, "sampler", config_of(point), rate)

    asked = run(Sampler(SMALL, name="tpe", seed=1, database=None), trials=100, outcome=told)
    assert len(asked) == SMALL.size


def test_points_that_crash_are_rarely_asked_for_again():
    def told(number, point):
        if point["num_batch_threads"] == 2:
            return crashed(number, "sampler", config_of(point))
        return measure(number, point)

    crashes = 0
    for seed in range(4):
        asked = run(Sampler(LARGE, name="tpe", seed=seed, database=None), trials=24, outcome=told)
        crashes += sum(point["num_batch_threads"] == 2 for point in asked[8:])
    assert crashes < 0.35 * 4 * 16  # half of them by chance


def test_the_sampler_goes_where_the_rate_is():
    asked = run(Sampler(LARGE, name="tpe", seed=1, database=None), trials=24)
    late = [rate_of(point) for point in asked[8:]]
    assert sum(late) / len(late) > sum(map(rate_of, LARGE.points())) / LARGE.size


def test_equal_seeds_propose_equal_points():
    one, other = (run(Sampler(LARGE, name="tpe", seed=5, database=None), trials=8) for _ in "ab")
    assert one == other
    assert run(Sampler(LARGE, name="tpe", seed=6, database=None), trials=8) != one


def test_a_resumed_search_does_not_repeat_what_is_on_disk():
    first = run(Sampler(SMALL, name="tpe", seed=1, database=None), trials=7)
    records = [measure(number, point) for number, point in enumerate(first, start=2)]
    resumed = Sampler(SMALL, name="tpe", seed=1, database=None)
    resumed.tell(records)
    rest = run(resumed, trials=100)
    measured = {config_of(point).id for point in (*first, *rest)}
    assert len(first) + len(rest) == len(measured) == SMALL.size


def test_the_study_on_disk_holds_what_was_measured_and_nothing_else(tmp_path):
    database = tmp_path / "study.db"
    for _ in range(2):  # a second run makes it anew
        asked = run(Sampler(SMALL, name="tpe", seed=1, database=database), trials=3)
    study = optuna.load_study(study_name="tuner", storage=f"sqlite:///{database}")
    told = study.trials
    assert [item.user_attrs["role"] for item in told] == ["off", "default", *["sampler"] * 3]
    assert [point_of(config_of(item.params), SMALL) for item in told[2:]] == asked
    assert told[-1].values[0] == rate_of(asked[-1])


def test_a_study_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"study.db: the study cannot be written"):
        Sampler(SMALL, name="tpe", seed=1, database=tmp_path / "nowhere" / "study.db")


def test_a_full_disk_is_named(small_disk):
    with pytest.raises(StoreError, match=r"study.db: the study cannot be written: .*full"):
        Sampler(SMALL, name="tpe", seed=1, database=small_disk / "study.db")


def test_the_grid_is_measured_in_order():
    asked = run(Sampler(SMALL, name="grid", seed=1, database=None), trials=100)
    assert asked == list(SMALL.points())


def test_a_sampler_that_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InputError, match='"gp" needs torch and scipy') as caught:
        Sampler(SMALL, name="gp", seed=1, database=None)
    assert "pip install torch scipy" in caught.value.hint


def test_the_model_learns_from_baselines_outside_the_space(tmp_path):
    sampler = Sampler(SMALL, name="auto", seed=1, database=tmp_path / "s.db", setting=SETTING)
    assert len(run(sampler, trials=4)) == 4
    study = optuna.load_study(study_name="tuner", storage=f"sqlite:///{tmp_path / 's.db'}")
    assert all("curve" in item.user_attrs for item in study.trials)
