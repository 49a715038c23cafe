import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.builtin import ensure
from tuner.errors import HostError
from tuner.model import batchable, inspect


def silent(_text):
    pass


@pytest.mark.slow
def test_the_dense_network_is_what_the_quickstart_asks_for(dense_model):
    info = inspect(dense_model)
    signature = info.signature()
    assert info.versions == (1,)
    assert {name: str(spec) for name, spec in signature.inputs.items()} == {
        "x": "DT_FLOAT [?, 64]"
    }
    assert {name: str(spec) for name, spec in signature.outputs.items()} == {
        "y": "DT_FLOAT [?, 10]"
    }
    assert batchable(signature)
    weights = sum(path.stat().st_size for path in dense_model.rglob("variables.data-*"))
    assert weights > 4 * 2048 * 2048 * 4
    assert [item.name for item in dense_model.parent.iterdir()] == [dense_model.name]


@pytest.mark.slow
def test_every_machine_exports_the_same_network(dense_model, tmp_path):
    other = tmp_path / "again" / "model"
    ensure("dense-2048x4", other, silent)
    assert inspect(other).fingerprint == inspect(dense_model).fingerprint


@pytest.mark.parametrize("name", ["dense-2048x4", "basic_pitch"])
def test_what_is_there_is_never_touched(tmp_path, name):
    path = tmp_path / "model"
    path.mkdir()
    (path / "mine").write_text("kept")
    told = []
    ensure(name, path, told.append)
    assert told == []
    assert [item.name for item in path.iterdir()] == ["mine"]
    (tmp_path / "link").symlink_to("nowhere")
    ensure(name, tmp_path / "link", told.append)
    assert told == []


@pytest.mark.slow
def test_without_tensorflow_the_failure_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tensorflow.py").write_text("raise ImportError('no such thing here')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(HostError, match=r"(?s)export by TensorFlow failed: .*no such thing here"):
        ensure("dense-2048x4", tmp_path / "models" / "dense", silent)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_offline_the_download_fails_with_a_remedy_and_leaves_nothing(tmp_path, monkeypatch):
    """An index that is an empty directory stands for a network that is not there."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(HostError, match=r"(?s)basic-pitch==0\.4\.0: cannot be downl.*offline"):
        ensure("basic_pitch", tmp_path / "models" / "basic_pitch", silent)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    forged = tmp_path / "basic_pitch-0.4.0-py2.py3-none-any.whl"
    forged.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty archive
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(HostError, match="cannot be downloaded"):
        ensure("basic_pitch", tmp_path / "models" / "basic_pitch", silent)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"(?s)file/model: the model cannot be written.*model\.pa"):
        ensure("dense-2048x4", tmp_path / "file" / "model", silent)


def test_the_parent_process_imports_no_tensorflow():
    code = "import sys, tuner.builtin; print('tensorflow' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_basic_pitch_is_taken_out_of_its_wheel(tmp_path):
    """Needs the package index once, or the model that a scenario run has fetched before."""
    path = Path(__file__).parents[1] / "models" / "basic_pitch"
    if not path.exists():
        path = tmp_path / "basic_pitch"
        try:
            ensure("basic_pitch", path, silent)
        except HostError as error:
            pytest.skip(f"no package index here: {error.message}")
    info = inspect(path)
    inputs = {name: str(spec) for name, spec in info.signature().inputs.items()}
    assert inputs == {"input_2": "DT_FLOAT [?, 43844, 1]"}
    assert info.fingerprint == "174ab12783e8864dd64f78a3a64c373cd3d644a64cddc781e2baa52379876667"
    assert "Apache License" in (path / "LICENSE").read_text()
    assert os.access(path / "NOTICE", os.R_OK)
