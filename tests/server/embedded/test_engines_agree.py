"""The load generator's engines get the same bytes from the same server."""

import pytest
from serving import request_of, rows_of

from tuner.load.client import ENGINES, engine_factory

pytestmark = pytest.mark.slow


def test_answers_are_equal_byte_for_byte(launch, model_dir):
    server = launch(f"--model_base_path={model_dir('affine')}", "--model_name=affine")
    requests = [request_of("affine", x=rows_of(*range(rows))) for rows in (1, 2, 33, 5_000)]
    requests.append(request_of("nobody", x=rows_of(1)))
    requests.append(request_of("affine", y=rows_of(1)))
    found = {}
    for name in ENGINES:
        engine = engine_factory(name)(f"127.0.0.1:{server.port}", deadline_s=20.0)
        found[name] = []
        for request in requests:
            status = engine.call(request.SerializeToString(), deadline_s=20.0)
            found[name].append((status, engine.last_answer if status[0] == "OK" else b""))
        engine.close()
    first, second = found.values()
    assert first == second
    assert [status[0] for status, _ in first] == ["OK"] * 4 + ["NOT_FOUND", "INVALID_ARGUMENT"]
    assert len(first[3][1]) > 5_000 * 16
