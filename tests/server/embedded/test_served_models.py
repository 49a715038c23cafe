from pathlib import Path

import pytest
import serving  # noqa: F401 - makes the protocol messages importable

from tuner.server.embedded.flags import Flags
from tuner.server.embedded.served_models import ServedModel, served_models
from tuner.server.embedded.status import ServingError


def test_only_numbers_are_versions(tmp_path):
    for name in ("1", "10", "2", "x", "3.tmp"):
        (tmp_path / name).mkdir()
    model = ServedModel("m", tmp_path)
    assert sorted(model.on_disk()) == [1, 2, 10]
    assert list(model.aspired(model.on_disk())) == [10]
    assert list(ServedModel("m", tmp_path, latest=2).aspired(model.on_disk())) == [10, 2]
    chosen = ServedModel("m", tmp_path, versions=frozenset({1, 5}))
    assert list(chosen.aspired(model.on_disk())) == [1]


def test_config_file(tmp_path):
    path = tmp_path / "models.txt"
    path.write_text(
        'model_config_list { config { name: "a" base_path: "/a" '
        "model_version_policy { latest { num_versions: 3 } } } "
        'config { name: "b" base_path: "/b" version_labels { key: "stable" value: 4 } } }'
    )
    first, second = served_models(Flags(model_config_file=str(path)))
    assert (first.name, first.base_path, first.latest) == ("a", Path("/a"), 3)
    assert second.labels == {"stable": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "Invalid protobuf file"),
        ('model_config_list { config { name: "a" base_path: "a" } }', "absolute path"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } '
            'config { name: "a" base_path: "/b" } }',
            "multiple times",
        ),
    ],
)
def test_bad_config_files(tmp_path, text, message):
    path = tmp_path / "models.txt"
    path.write_text(text)
    with pytest.raises(ServingError, match=message):
        served_models(Flags(model_config_file=str(path)))


def test_missing_files_and_flags(tmp_path):
    with pytest.raises(ServingError, match=r"NOT_FOUND: .*; No such file or directory"):
        served_models(Flags(model_config_file=str(tmp_path / "none")))
    with pytest.raises(ServingError, match="are empty!"):
        served_models(Flags())
