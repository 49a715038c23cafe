import json
from dataclasses import replace

import pytest
from trials import DEFAULT, batched, crashed, trial

from tuner.batching import BatchingParameters
from tuner.commands.check import judged, recommended_rps
from tuner.commands.compare import entrants_of
from tuner.errors import BatchingError


def test_a_file_is_kept_where_every_start_holds():
    held = [trial(number, "given", batched(8), 100.0) for number in range(2)]
    found = judged(held, 100.0)
    assert (found.kept, found.why) == (True, "the SLO holds at 100.0 requests/s in 2 starts")
    assert json.loads(json.dumps(found.as_object()))["kept"] is True


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (trial(0, "given", batched(8), 0.0), "the SLO does not hold at 100.0 requests/s"),
        (trial(0, "given", batched(8), None), "the SLO could not be decided at 100.0 requests/s"),
        (crashed(0, "given", batched(8)), "the server exited before it was ready (exit code 1)"),
    ],
)
def test_what_fails_says_how(record, said):
    found = judged([record], 100.0)
    assert not found.kept
    assert found.why.startswith(said)


def test_the_reason_is_the_levels_own():
    record = trial(0, "given", batched(8), 0.0)
    level = record.levels[-1]
    level = replace(level, verdict=replace(level.verdict, reasons=("p99 <= 60 ms is missed",)))
    assert judged([replace(record, levels=(level,))], None).why == (
        "the SLO does not hold at some load: p99 <= 60 ms is missed"
    )


def test_a_recommended_file_is_checked_at_what_it_was_recommended_for(tmp_path):
    batching = BatchingParameters(max_batch_size=16, num_batch_threads=1)
    path = tmp_path / "batching_parameters.txt"
    assert recommended_rps(path, batching) is None
    told = {"parameters": batching.to_dict(), "recommended": {"sustainable_rps": 500.0}}
    (tmp_path / "recommendation.json").write_text(json.dumps(told))
    assert recommended_rps(path, batching) == pytest.approx(450.0)
    assert recommended_rps(path, BatchingParameters(max_batch_size=32)) is None
    assert recommended_rps(None, None) is None


def test_entrants_are_files_and_words_and_may_come_twice(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("max_batch_size { value: 8 }")
    found = entrants_of(["default", str(path), "off", str(path)], 2)
    assert [item.arm for item in found] == ["default", str(path), "off", f"{path} #2"]
    assert found[0].config == DEFAULT
    assert found[2].config.batching is None
    assert found[1].config == found[3].config
    with pytest.raises(BatchingError):
        entrants_of(["nowhere.txt"], 2)
