import numpy as np
import pytest

from tuner.search.correction import features_of, learn

CHOICES = {
    "max_batch_size": (8, 32, 128),
    "batch_timeout_micros": (0, 2000),
    "num_batch_threads": (1, 2),
    "allowed_batch_sizes": ("any",),
    "flag.fast": (True, False),
}


def test_errors_of_neighbours_are_expected_of_what_lies_between():
    at = np.linspace(0, 6, 13)[:, None]
    errors = 0.2 * np.sin(at[:, 0])
    mean, deviation = learn(at, errors).at(np.array([[2.25], [30.0]]))
    assert mean[0] == pytest.approx(0.2 * np.sin(2.25), abs=0.03)
    assert deviation[0] < deviation[1] / 2


def test_an_error_common_to_all_is_expected_everywhere():
    at = np.arange(6.0)[:, None] * 5
    mean, _ = learn(at, np.full(6, -0.25)).at(np.array([[100.0]]))
    assert mean[0] == pytest.approx(-0.25, abs=0.05)


def test_left_out_errors_show_whether_neighbours_tell_anything():
    rng = np.random.default_rng(2)
    at = rng.uniform(0, 6, (20, 1))
    smooth = learn(at, 0.3 * np.sin(at[:, 0])).left_out
    noise = learn(at, 0.3 * rng.standard_normal(20)).left_out
    assert np.sqrt(np.mean(smooth**2)) < 0.1 < np.sqrt(np.mean(noise**2))


def test_features_measure_sizes_by_ratio_and_words_by_equality():
    point = {
        "max_batch_size": 8,
        "batch_timeout_micros": 0,
        "num_batch_threads": 1,
        "allowed_batch_sizes": "any",
        "flag.fast": True,
    }
    doubled, further = ({**point, "max_batch_size": size} for size in (32, 128))
    other = {**point, "flag.fast": False}
    rows = features_of([point, doubled, further, other], CHOICES)
    distance = np.linalg.norm(rows - rows[0], axis=1)
    assert distance[2] == pytest.approx(2 * distance[1])
    assert distance[3] == pytest.approx(np.sqrt(2))
