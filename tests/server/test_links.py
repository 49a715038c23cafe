"""Links that lead out of a folder, as stores of models make them."""

import pytest

from tuner.server.links import beyond


@pytest.fixture
def store(tmp_path):
    """A version whose files lie in a store, which has moved once."""
    (tmp_path / "blobs" / "variables").mkdir(parents=True)
    (tmp_path / "blobs" / "graph").touch()
    (tmp_path / "store").symlink_to(tmp_path / "blobs")
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").symlink_to(tmp_path / "store" / "graph")
    (version / "variables").symlink_to("../../blobs/variables")
    return tmp_path


def test_what_links_lead_to_is_given_where_they_say(store):
    assert set(beyond([store / "m"])) == {store / "store" / "graph", store / "blobs" / "variables"}


def test_what_is_mounted_already_is_left_out(store):
    assert beyond([store / "m"], [store / "blobs"]) == (store / "store" / "graph",)


def test_links_behind_links_are_followed(store):
    (store / "elsewhere").mkdir()
    (store / "blobs" / "variables" / "data").symlink_to(store / "elsewhere")
    assert store / "elsewhere" in beyond([store / "m"])


def test_a_link_inside_and_one_that_leads_nowhere_need_nothing(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "stable").symlink_to("1")
    (tmp_path / "2").symlink_to(tmp_path.parent / "nowhere")
    assert beyond([tmp_path]) == ()


def test_a_ring_of_links_ends(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "on").symlink_to(other)
    (other / "on").symlink_to(one)
    assert beyond([one]) == (other,)
