"""What a log without a terminal gets to read."""

from dataclasses import replace

from trials import batched, trial

from tuner.commands import progress
from tuner.commands.progress import Narrator, finding
from tuner.records import Doubt
from tuner.trial import Task

PULL = [f"pulling an/image [{'#' * n:<4}] {n} of 4 MB" for n in range(5)]


def lines(capsys):
    return [line.split("  ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_a_log_names_every_step_before_the_first_trial_once(capsys):
    with Narrator() as narrator:
        for text in ("pulling an/image", *PULL, "building the requests"):
            narrator.note(text)
    assert lines(capsys) == ["pulling an/image", "building the requests"]


def test_a_long_step_is_told_again_after_a_while(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0)
    with Narrator() as narrator:
        for text in PULL:
            narrator.note(text)
    assert lines(capsys) == PULL


def test_a_trial_is_told_in_a_few_words_with_small_rates_in_three_digits():
    noted = Doubt("decided-together", "8/s holds by its own requests and others", "wait longer")
    record = replace(trial(3, "final", batched(8), 9.376), notes=(noted, noted))
    assert finding(record) == "9.38/s sustainable, p99 20.0 ms; decided together"


def test_a_log_has_one_line_for_a_trial_and_none_for_its_steps(capsys):
    with Narrator() as narrator:
        narrator.begin(Task(0, "sampler", batched(8)), done=0, total=1, left_s=None)
        narrator.note("starting the server")
    assert len(lines(capsys)) == 1
