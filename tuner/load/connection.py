"""The client's end of one HTTP/2 connection that carries unary gRPC calls: no I/O, few objects.

A call is a row of the ledger and nothing else, as long as its answer looks like those before it.
"""

from collections.abc import Sequence

from tuner.clock import now_ns as read_clock
from tuner.http2 import frames
from tuner.http2.answers import (
    DEADLINE_EXCEEDED,
    AnswerHead,
    AnswerMessage,
    StatusKey,
    read_answer_head,
    reset_status,
)
from tuner.http2.flow import ReceiveWindow
from tuner.http2.frames import ErrorCode, Http2Error
from tuner.http2.headers import Field, RepeatedBlock
from tuner.http2.peer import MAX_FRAME_BYTES, RECEIVE_WINDOW, Peer, require_connection
from tuner.load.layout import ENOUGH, FEW, MANY_AT_FIRST, Layout, Layouts
from tuner.load.ledger import ANSWERED, APART, ASKED, ENDED, HEADED, Ledger, Rows
from tuner.load.messages import MANY, Messages
from tuner.load.statuses import Statuses

MAX_STREAM_ID = 2**31 - 1
_END_HEADERS, _END_STREAM = frames.END_HEADERS, frames.END_STREAM
_INTERIM = range(100, 200)
_PLAIN = AnswerHead(200, None, "", b"application/grpc")


class _Answer:
    """An answer that is read frame by frame: its first header block and its message so far."""

    __slots__ = ("head", "message", "window")

    def __init__(self, head: AnswerHead) -> None:
        self.head = head
        self.message = AnswerMessage()
        self.window: ReceiveWindow | None = None


class ClientConnection(Peer[AnswerHead]):
    """Calls go in by `send`, the server's bytes by `receive`; ends are noted in `ledger`.

    `ready` says that the server's settings have come. `draining` says that no further stream may
    be opened (GOAWAY, or ids ran out), though those that are open go on.
    """

    def __init__(self, fields: Sequence[Field], messages: Messages, statuses: Statuses) -> None:
        super().__init__(read_answer_head)
        self.ledger = Ledger()
        self.messages = messages
        self.statuses = statuses
        self.ready = False
        self.draining = False
        self.failure: StatusKey | None = None
        self.last_answer = b""
        self._block = RepeatedBlock(fields)
        self._next_id = 1
        self._base = 0
        self._max_streams = MAX_STREAM_ID
        self._answers: dict[int, _Answer] = {}
        # Streams that were reset from this side, whose answers may still be on their way.
        self._cancelled: set[int] = set()
        self._layouts = Layouts(self._headers)
        self._now_ns = 0
        self.out.append(frames.PREFACE)
        self._announce({frames.ENABLE_PUSH: 0})

    # Sending.

    @property
    def room(self) -> int:
        """How many further streams the server allows now."""
        if not self.ready or self.draining or self.closing:
            return 0
        left = (MAX_STREAM_ID - self._next_id) // 2 + 1
        return min(self._max_streams - self.ledger.outstanding, left)

    def send(
        self,
        intended_ns: Sequence[int],
        picks: Sequence[int],
        now_ns: int,
        last: Field | None = None,
    ) -> None:
        """Open a stream for each pick, at most `room` of them; see RepeatedBlock for `last`.

        `now_ns` stands for `sent_ns` until the ledger is stamped.
        """
        ledger = self.ledger
        ledger.reserve(len(picks))
        block = self._block.block
        if len(picks) >= MANY and block is not None and self._send_many(picks, block):
            first, stop = ledger.count, ledger.count + len(picks)
            ledger.intended_ns[first:stop] = intended_ns
            ledger.sent_ns[first:stop] = now_ns
            ledger.message[first:stop] = picks
            ledger.count = stop
            return
        row, flow, bodies, out = ledger.count, self.sending, self.messages.bodies, self.out
        word = len(block or b"") << 8 | frames.HEADERS
        pack = self.messages.head(block or b"").pack
        for pick, intended in zip(picks, intended_ns, strict=True):
            stream_id = self._next_id
            body = bodies[pick]
            size = len(body)
            if block is None or last or flow.waiting or size > flow.whole or size > flow.window:
                self._send_slowly(stream_id, body, last)
                block = self._block.block
                word = len(block or b"") << 8 | frames.HEADERS
                pack = self.messages.head(block or b"").pack
            else:
                flow.window -= size
                out.append(
                    pack(word, _END_HEADERS, stream_id, block, size << 8, _END_STREAM, stream_id)
                )
                out.append(body)
            ledger.intended_at[row] = intended
            ledger.sent_at[row] = now_ns
            ledger.message_at[row] = pick
            row += 1
            self._next_id = stream_id + 2
        ledger.count = row
        if self._next_id > MAX_STREAM_ID:
            self.draining = True

    def _send_many(self, picks: Sequence[int], block: bytes) -> bool:
        """Build the frames of many like requests at once. False: they are not alike."""
        size, flow = self.messages.even_size, self.sending
        total = size * len(picks)
        if not size or flow.waiting or size > flow.whole or total > flow.window:
            return False
        flow.window -= total
        self.out.append(self.messages.pack_many(picks, block, self._next_id))
        self._next_id += 2 * len(picks)
        if self._next_id > MAX_STREAM_ID:
            self.draining = True
        return True

    def _send_slowly(self, stream_id: int, body: bytes, last: Field | None) -> None:
        """Send a request whose header block is new, or whose body has to wait for windows."""
        block = self._block.encode(last)
        step = self.sending.frame_size
        flags = 0 if len(block) > step else _END_HEADERS
        self.out.append(frames.pack_frame(frames.HEADERS, flags, stream_id, block[:step]))
        for at in range(step, len(block), step):
            flags = 0 if len(block) > at + step else _END_HEADERS
            part = block[at : at + step]
            self.out.append(frames.pack_frame(frames.CONTINUATION, flags, stream_id, part))
        tail = frames.pack_frame(frames.DATA, frames.END_STREAM, stream_id)
        self.sending.send(stream_id, body, tail)

    # Ends.

    def expire(self, now_ns: int, deadline_ns: int) -> int | None:
        """End the requests sent `deadline_ns` ago; return when the next is to end, or None."""
        ledger = self.ledger
        while (row := ledger.first_outstanding()) < ledger.count:
            due_ns = ledger.sent_at[row] + deadline_ns
            if due_ns > now_ns:
                return int(due_ns)
            self._now_ns = now_ns
            self._fail(self._stream_of(row), row, DEADLINE_EXCEEDED, ErrorCode.CANCEL)
        return None

    def lose(self, status: StatusKey, now_ns: int) -> None:
        """End every outstanding request: the connection is gone."""
        self.failure = self.failure or status
        self.ledger.end_all(now_ns, self.statuses.number(self.failure))
        self.closing = True
        self._answers.clear()
        self.sending.waiting.clear()

    def close(self, code: ErrorCode, text: str = "") -> None:
        if not self.closing:
            self.out.append(frames.pack_goaway(0, code, text))
            self.closing = True
            self.failure = ("UNAVAILABLE", f"the server broke HTTP/2: {text}")

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream because of a frame that breaks the rules; its call has failed."""
        row = self._open_row(stream_id)
        if row is not None:
            self._fail(
                stream_id, row, ("INTERNAL", f"the server's stream broke: {code.name}"), code
            )

    def take(self) -> Rows:
        """Hand out the rows that have ended, in order, up to the first that has not."""
        rows = self.ledger.take()
        self._base += len(rows.intended_ns)
        self._cancelled = {stream for stream in self._cancelled if stream >> 1 >= self._base}
        return rows

    def _end(self, stream_id: int, row: int, status: StatusKey) -> None:
        """Note an end that the server gave."""
        if stream_id in self.sending.waiting:  # answered before it was asked in full
            self.sending.forget(stream_id)
            self.out.append(frames.pack_reset(stream_id, ErrorCode.NO_ERROR))
            self._cancelled.add(stream_id)
        self._answers.pop(stream_id, None)
        self.ledger.end(row, self._now_ns, self.statuses.number(status))

    def _fail(self, stream_id: int, row: int, status: StatusKey, code: ErrorCode) -> None:
        """End a stream from this side."""
        self.sending.forget(stream_id)
        self.out.append(frames.pack_reset(stream_id, code))
        self._cancelled.add(stream_id)
        self._answers.pop(stream_id, None)
        self.ledger.end(row, self._now_ns, self.statuses.number(status))

    # Receiving.

    def receive(self, data: bytes) -> None:
        """Take bytes from the server. A violation sets `closing` and `failure`."""
        if self.closing:
            return
        self._now_ns = read_clock()
        if self._partial:
            data = self._partial + data
        try:
            self._read_frames(data, 0)
        except Http2Error as error:
            self.close(error.code, str(error))

    def _read_frames(self, data: bytes, at: int) -> None:
        """Read many frames at once where they are like earlier ones, else one by one."""
        end = len(data)
        while not self.closing:
            if self._prescribed is None:
                at = self._read_alike(data, at, end)
            if end - at < frames.FRAME_HEAD_BYTES:
                break
            word, flags, stream_id = frames.FRAME_HEAD.unpack_from(data, at)
            size = word >> 8
            if size > MAX_FRAME_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a frame is over MAX_FRAME_SIZE")
            start = at + frames.FRAME_HEAD_BYTES
            if start + size > end:
                break
            at = start + size
            stream_id &= frames.STREAM_MASK
            if self._prescribed is not None:
                self._check_prescribed(word & 0xFF, flags, stream_id)
            read = self._READERS.get(word & 0xFF)
            if read is not None:  # frames of unknown types are passed over
                read(self, flags, stream_id, data[start:at])
        self._partial = data[at:]

    def _read_alike(self, data: bytes, at: int, end: int) -> int:
        """Take the frames at `at` that are laid out like earlier ones; return their end."""
        while end - at >= frames.FRAME_HEAD_BYTES:
            layout = self._layouts.find(data, at)
            stop = at if layout is None else self._read_layout(layout, data, at, end)
            if stop == at:
                layout = self._layouts.learn(data, at)
                if layout is None:
                    return at
                stop = self._read_layout(layout, data, at, end)
                if stop == at:
                    return at
            at = stop
        return at

    def _read_layout(self, layout: Layout, data: bytes, at: int, end: int) -> int:
        begin, length, size = at, layout.length, MANY_AT_FIRST
        many = end - at >= ENOUGH * length
        at = self._read_some(layout, data, at, at + FEW * length if many else end)
        if many and at == begin + FEW * length:
            # Ever more at once, as long as all of them are alike: a long run is worth a comparison
            # of all its bytes, and a short one is not.
            while (count := min((end - at) // length, size)) >= ENOUGH:
                stop = self._read_many(layout, data, at, count)
                whole = stop == at + count * length
                at, size = stop, 4 * size
                if not whole:
                    break
            at = self._read_some(layout, data, at, min(end, at + ENOUGH * length))
        if at > begin and layout.data_bytes:
            number = (at - begin) // length
            if increment := self._receiving.consume(number * layout.data_bytes):
                self.out.append(frames.pack_window_update(0, increment))
            offset, size = layout.message
            last = at - length + offset
            self.last_answer = data[last : last + size]
        return at

    def _read_many(self, layout: Layout, data: bytes, at: int, count: int) -> int:
        """As `_read_layout`, for many at once, where streams come in the order of their ids."""
        streams = layout.streams(data, at, count)
        rows = (streams >> 1) - self._base
        ledger = self.ledger
        if (
            not len(rows)
            or not (streams & 1).all()
            or (rows[1:] <= rows[:-1]).any()
            or rows[0] < 0
            or rows[-1] >= ledger.count
            or (ledger.state[rows] != layout.begins).any()
        ):
            return at
        ledger.state[rows] = layout.ends
        if layout.ends == ENDED:
            ledger.done_ns[rows] = self._now_ns
            ledger.ended += len(rows)
        return at + len(rows) * layout.length

    def _read_some(self, layout: Layout, data: bytes, at: int, stop: int) -> int:
        """As `_read_layout`, one by one, up to `stop` at most."""
        ledger, unpack, base = self.ledger, layout.unpack, self._base
        state, done, count, length = ledger.state_at, ledger.done_at, ledger.count, layout.length
        begins, ends, heads, payloads = layout.begins, layout.ends, layout.heads, layout.payloads
        while stop - at >= length:
            parts = unpack(data, at)
            if parts[0::3] != heads or parts[2::3] != payloads:
                break
            stream_id = parts[1]
            row = (stream_id >> 1) - base
            if not 0 <= row < count or state[row] != begins or not stream_id & 1:
                break
            if len(parts) > 3 and not stream_id == parts[4] == parts[-2]:
                break
            state[row] = ends
            if ends == ENDED:
                done[row] = self._now_ns
                ledger.ended += 1
            at += length
        return at

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if increment := self._receiving.consume(size):
            self.out.append(frames.pack_window_update(0, increment))
        row = self._open_row(stream_id)
        if row is None:
            self._on_stray(stream_id, "DATA")
            return
        if flags & frames.PADDED:
            payload = frames.strip_padding(payload)
        state = self.ledger.state_at[row]
        if state == ASKED:
            self._violate(stream_id, row, "it began with DATA")
            return
        answer = self._answers.get(stream_id) or self._set_apart(stream_id, row)
        if not (answer.message.feed(payload) if state != ANSWERED else not payload):
            text = "more than one message answers a unary call"
            self._fail(stream_id, row, ("INTERNAL", text), ErrorCode.CANCEL)
        elif flags & frames.END_STREAM:
            self._end(stream_id, row, AnswerHead(None, None, "", b"").status(answer.head))
        else:
            if answer.window is None:
                answer.window = ReceiveWindow(RECEIVE_WINDOW)
            if increment := answer.window.consume(size):
                self.out.append(frames.pack_window_update(stream_id, increment))

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        head = self._headers.decode(block)
        row = self._open_row(stream_id)
        if row is None:
            self._on_stray(stream_id, "HEADERS")
            return
        ends, state = flags & frames.END_STREAM, self.ledger.state_at[row]
        if fault := _fault(head, first=state == ASKED, ends=bool(ends)):
            self._violate(stream_id, row, fault)
        elif state != ASKED:
            self._on_trailers(stream_id, row, head)
        elif ends:
            status = head.status(head)
            text = "the answer ended without a message"
            self._end(stream_id, row, ("INTERNAL", text) if status[0] == "OK" else status)
        elif head.http_status not in _INTERIM:
            self._answers[stream_id] = _Answer(head)
            self.ledger.state_at[row] = APART

    def _on_trailers(self, stream_id: int, row: int, head: AnswerHead) -> None:
        answer = self._answers.get(stream_id)
        status = head.status(_PLAIN if answer is None else answer.head)
        if status[0] == "OK" and self.ledger.state_at[row] != ANSWERED:
            message = AnswerMessage() if answer is None else answer.message
            status, self.last_answer = message.finish()
        self._end(stream_id, row, status)

    def _set_apart(self, stream_id: int, row: int) -> _Answer:
        """Read the rest of an answer frame by frame, whose beginning was like all others."""
        answer = _Answer(_PLAIN)
        if self.ledger.state_at[row] == HEADED:
            self._answers[stream_id] = answer
            self.ledger.state_at[row] = APART
        return answer

    def _violate(self, stream_id: int, row: int, fault: str) -> None:
        """End a stream whose answer breaks HTTP/2's rules for messages."""
        status = ("INTERNAL", f"the answer is malformed: {fault}")
        self._fail(stream_id, row, status, ErrorCode.PROTOCOL_ERROR)

    def _on_stray(self, stream_id: int, frame: str) -> None:
        """Judge a frame of a stream on which nothing may come (any more)."""
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{frame} on idle stream {stream_id}")
        # Rows of an earlier run are forgotten, and so is who ended them.
        if stream_id not in self._cancelled and stream_id >> 1 >= self._base:
            raise Http2Error(ErrorCode.STREAM_CLOSED, f"{frame} on closed stream {stream_id}")

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        code = frames.parse_u32(payload, "RST_STREAM")
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {stream_id}")
        row = self._open_row(stream_id)
        if row is not None:
            self.sending.forget(stream_id)
            self._end(stream_id, row, reset_status(code))

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Open no more streams; those the server has not taken up and never will have failed."""
        require_connection(stream_id, "GOAWAY")
        last, code, text = frames.parse_goaway(payload)
        self.draining = True
        reason = f"the server is going away ({_name(code)})" + (f": {text}" if text else "")
        for row in range(self.ledger.first_outstanding(), self.ledger.count):
            stream = self._stream_of(row)
            if stream > last and self.ledger.state_at[row] < ENDED:
                self.sending.forget(stream)
                self._cancelled.add(stream)
                self._end(stream, row, ("UNAVAILABLE", reason))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        super()._on_settings(flags, stream_id, payload)
        self.ready = True

    def _on_setting(self, number: int, value: int) -> None:
        if number == frames.MAX_CONCURRENT_STREAMS:
            self._max_streams = value
        elif number == frames.HEADER_TABLE_SIZE:
            self._block.resize(value)
        elif number == frames.ENABLE_PUSH and value:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a server announced ENABLE_PUSH")
        else:
            super()._on_setting(number, value)

    def _is_idle(self, stream_id: int) -> bool:
        """Say whether the stream was never opened; stream 0 and all even ones never are."""
        return stream_id >= self._next_id or not stream_id & 1

    def _may_send(self, stream_id: int) -> bool:
        return stream_id in self.sending.waiting

    def _finish(self, stream_ids: list[int]) -> None:
        """Do nothing: a request that was sent waits for its answer."""

    def _open_row(self, stream_id: int) -> int | None:
        """The row of a stream that is open, else None."""
        row = (stream_id >> 1) - self._base
        if (
            not stream_id & 1
            or not 0 <= row < self.ledger.count
            or self.ledger.state_at[row] == ENDED
        ):
            return None
        return row

    def _stream_of(self, row: int) -> int:
        return (row + self._base) << 1 | 1


def _fault(head: AnswerHead, *, first: bool, ends: bool) -> str:
    """Name what makes a header block malformed at its place, if anything does."""
    if head.malformed:
        return head.malformed
    if first:
        if head.http_status is None:
            return "it has no :status"
        return "it ended with an interim status" if ends and head.http_status in _INTERIM else ""
    if not ends:
        return "its trailers do not end it"
    return "" if head.http_status is None else "its trailers have a :status"


def _name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error 0x{code:x}"
