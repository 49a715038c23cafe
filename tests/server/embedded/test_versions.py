"""Versions that come and go, and several models in one server."""

import shutil
import time

import pytest
from serving import request_of, rows_of

pytestmark = pytest.mark.slow


def test_a_new_version_takes_over_without_a_failed_request(launch, model_dir, exported):
    base = model_dir("affine", 1)
    server = launch("--model_name=m", f"--model_base_path={base}", "--enable_batching=true")
    request = request_of("m", x=rows_of(1))
    assert server.predict(request).y[0, 0] == 3
    shutil.copytree(exported / "affine" / "2", base / "incoming")
    (base / "incoming").rename(base / "2")
    deadline = time.monotonic() + 60
    while (answer := server.predict(request)).version == 1:
        assert answer.y[0, 0] == 3
        assert time.monotonic() < deadline
    assert answer.y[0, 0] == 4
    server.wait_for("Done unloading servable version {name: m version: 1}")
    assert server.failure(request_of("m", version=1, x=rows_of(1)))[0] == "NOT_FOUND"
    assert server.predict(request).y[0, 0] == 4


def test_parameters_of_a_version(launch, model_dir, exported):
    base = model_dir("affine", 1)
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    server = launch(
        "--model_name=m",
        f"--model_base_path={base}",
        "--enable_batching=true",
        "--enable_per_model_batching_parameters=true",
        "--max_num_load_retries=0",
    )
    three = request_of("m", x=rows_of(1, 2, 3))
    assert server.failure(three)[1] == "Task size 3 is larger than maximum input batch size 2"

    broken = base / "incoming"
    shutil.copytree(exported / "affine" / "1", broken)
    (broken / "batching_params.pbtxt").write_text("max_batch_size: 2")
    broken.rename(base / "2")
    server.wait_for("Loading servable: {name: m version: 2} failed: INVALID_ARGUMENT: Invalid pro")
    assert server.predict(request_of("m", x=rows_of(1))).version == 1

    # A version without a file is served unbatched: no limit on rows.
    shutil.copytree(exported / "affine" / "2", broken)
    broken.rename(base / "3")
    server.wait_for("Done unloading servable version {name: m version: 1}")
    assert server.predict(three).version == 3

    fatal = base / "incoming"
    shutil.copytree(exported / "affine" / "1", fatal)
    (fatal / "batching_params.pbtxt").write_text("max_batch_size { value: 0 }")
    fatal.rename(base / "4")
    code, _, log = server.wait_exit()
    assert code == 139
    assert "input_batch_size_limit must be positive; was 0" in log


def test_several_models_with_policies_and_labels(launch, exported, tmp_path):
    config = tmp_path / "models.txt"
    config.write_text(
        f"""model_config_list {{
          config {{ name: "both" base_path: "{exported / "affine"}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
            version_labels {{ key: "stable" value: 1 }} }}
          config {{ name: "latest" base_path: "{exported / "affine"}" }}
          config {{ name: "all" base_path: "{exported / "affine"}"
            model_version_policy {{ all {{}} }} }} }}"""
    )
    server = launch(f"--model_config_file={config}", "--enable_batching=true")
    one = rows_of(1)
    assert server.predict(request_of("both", x=one)).version == 2
    assert server.predict(request_of("both", label="stable", x=one)).y[0, 0] == 3
    assert server.predict(request_of("all", version=1, x=one)).y[0, 0] == 3
    assert server.predict(request_of("latest", x=one)).y[0, 0] == 4
    assert server.failure(request_of("latest", version=1, x=one))[0] == "NOT_FOUND"
