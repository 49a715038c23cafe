"""What is sent to another host: archives that an ordinary tar reads. No engine is needed."""

import io
import tarfile

import pytest

from tuner.errors import ModelError
from tuner.server.containers.copies import Entry, archive, as_version, tree


def read(entries):
    told = []
    data = b"".join(archive(entries, told.append))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return list(tar.getmembers()), sum(told), data


@pytest.fixture
def version(tmp_path):
    (tmp_path / "store").write_bytes(b"graph" * 300)
    folder = tmp_path / "m" / "7"
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "data").write_bytes(b"x" * 512)
    (folder / "saved_model.pb").symlink_to(tmp_path / "store")
    return folder


def test_links_are_copied_as_what_they_lead_to(version):
    entries = list(tree(version, "7/", follow=True))
    members, told, data = read(entries)
    assert [member.name for member in members] == [
        "7/saved_model.pb",
        "7/variables",
        "7/variables/data",
    ]
    assert [member.size for member in members] == [1500, 0, 512]
    assert told == 2012
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.extractfile("7/saved_model.pb").read() == b"graph" * 300


def test_everybody_may_read_and_nobody_else_owns(version):
    (version / "saved_model.pb").resolve().chmod(0o600)
    members, *_ = read(tree(version, follow=True))
    assert {member.mode for member in members if member.isfile()} == {0o644}
    assert {member.mode for member in members if member.isdir()} == {0o755}
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}


def test_a_version_appears_whole(version):
    """Its number is the last that comes, and leads to what has come before."""
    members, *_ = read(as_version(version))
    assert (members[0].name, members[0].isdir()) == (".7", True)
    assert (members[-1].name, members[-1].issym(), members[-1].linkname) == ("7", True, ".7")
    graph = next(member for member in members if member.name == ".7/saved_model.pb")
    assert graph.linkname == str(version.parents[1] / "store")


def test_a_long_name_is_kept(tmp_path):
    name = "n" * 200
    (tmp_path / name).write_bytes(b"1")
    members, *_ = read(tree(tmp_path, follow=True))
    assert [member.name for member in members] == [name]


def test_a_file_that_shrinks_meanwhile_is_named(version):
    file = version / "variables" / "data"
    entry = Entry("data", source=file, size=600)
    with pytest.raises(ModelError, match="became shorter while it was copied"):
        read([entry])


def test_a_file_that_is_gone_is_named(version):
    entry = Entry("data", source=version / "gone", size=1)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read([entry])
