import pytest

from tuner.http2.answers import AnswerMessage, read_answer_head, reset_status
from tuner.http2.frames import ErrorCode


def head(**fields):
    names = {"status": b":status", "code": b"grpc-status", "text": b"grpc-message",
             "kind": b"content-type"}  # fmt: skip
    return read_answer_head([(names[name], value) for name, value in fields.items()])


def test_a_good_answer():
    first, last = head(status=b"200", kind=b"application/grpc+proto"), head(code=b"0")
    assert first.plain
    assert last.good_end
    assert last.status(first) == ("OK", "")


@pytest.mark.parametrize(
    ("first", "last", "status"),
    [
        ({"status": b"200"}, {"code": b"14", "text": b"a%20b%"}, ("UNAVAILABLE", "a b%")),
        ({"status": b"200"}, {"code": b"99"}, ("UNKNOWN", "")),
        ({"status": b"200"}, {"code": b"x"}, ("UNKNOWN", "")),
        ({"status": b"503"}, {}, ("UNAVAILABLE", "HTTP status 503 without a grpc-status")),
        ({"status": b"418"}, {}, ("UNKNOWN", "HTTP status 418 without a grpc-status")),
        ({"status": b"503"}, {"code": b"8"}, ("RESOURCE_EXHAUSTED", "")),
        (
            {"status": b"200", "kind": b"text/html"},
            {},
            ("UNKNOWN", "the answer's content-type is 'text/html', not application/grpc"),
        ),
        (
            {"status": b"200", "kind": b"application/grpc"},
            {},
            ("UNKNOWN", "the answer ended without a grpc-status"),
        ),
    ],
)
def test_statuses(first, last, status):
    assert head(**last).status(head(**first)) == status


@pytest.mark.parametrize(
    "fields",
    [
        [(b"a", b"b"), (b":status", b"200")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"20"), (b"a", b"b")],
        [(b":status", b"OK")],
        [(b":path", b"/")],
        [(b"Upper", b"x")],
    ],
)
def test_malformed_blocks(fields):
    assert read_answer_head(fields).malformed
    assert not read_answer_head(fields).plain


def test_resets():
    assert reset_status(ErrorCode.REFUSED_STREAM)[0] == "UNAVAILABLE"
    assert reset_status(ErrorCode.CANCEL)[0] == "CANCELLED"
    assert reset_status(0xBEEF) == ("INTERNAL", "the server reset the stream with error 0xbeef")


@pytest.mark.parametrize(
    ("pieces", "status", "message"),
    [
        ([b"\0\0\0\0\2ab"], "OK", b"ab"),
        ([b"\0\0", b"\0\0\2a", b"", b"b"], "OK", b"ab"),
        ([b"\0\0\0\0\0"], "INTERNAL", b""),
        ([b"\1\0\0\0\2ab"], "INTERNAL", b""),
        ([b"\0\0\0\0\2a"], "INTERNAL", b""),
        ([b"\0\0\0"], "INTERNAL", b""),
        ([], "INTERNAL", b""),
    ],
)
def test_messages(pieces, status, message):
    reader = AnswerMessage()
    assert all(reader.feed(piece) for piece in pieces)
    (code, _), found = reader.finish()
    assert (code, found) == (status, message)


def test_more_than_one_message_is_noticed_at_once():
    reader = AnswerMessage()
    assert reader.feed(b"\0\0\0\0\2ab")
    assert not reader.feed(b"c")
