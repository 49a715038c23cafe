"""One generator process as its parent holds it: started, asked, and told apart dead from slow."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from io import BufferedReader
from select import POLLIN, poll
from typing import IO, cast

from tuner.errors import LoadError
from tuner.load import wire

START_S = 30.0
"""How long the process may take to start and connect."""

GRACE_S = 30.0
"""How much longer than its schedule and deadline a run may take before it counts as stuck."""

_TAIL_BYTES = 2000
_TAIL_LINES = 6


class Process:
    """A worker. After an interrupted or failed exchange it can only be closed."""

    def __init__(self) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - see close
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuner.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # Ctrl-C in the terminal is the parent's to decide on.
            start_new_session=True,
            # No BLAS is called, and its threads would cost start-up time.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands = self._process.stdin
        self._replies = cast("BufferedReader", self._process.stdout)
        self._idle = True

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def close(self) -> None:
        """End the process, at once where it does not end by itself."""
        with suppress(BrokenPipeError):
            self._commands.close()  # the worker exits at the end of its input
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._stderr.close()

    def tell(self, command: wire.Message, blob: bytes = b"") -> None:
        """Send one command. Raises LoadError where the process has gone or is in disorder."""
        if not self._idle:
            raise LoadError(
                "the load generator was interrupted in the middle of a run",
                hint="leave its `with` block and start another",
            )
        self._idle = False
        try:
            wire.write(self._commands, command, blob)
        except BrokenPipeError:
            raise self.death() from None

    def stop(self, at_s: float) -> None:
        """Ask a long run to begin no piece at or after this time of its schedule."""
        with suppress(BrokenPipeError):  # its death will be heard
            wire.write(self._commands, {"do": "stop", "at_s": at_s})

    def hear(self, expected_s: float) -> tuple[wire.Message, bytes]:
        """Wait for the reply to the last command. Raises LoadError, as the process's own too.

        A reply that is `going_on` is followed by others.
        """
        try:
            self._await_reply(expected_s + GRACE_S)
            reply, answer = wire.read(self._replies)
        except EOFError:
            raise self.death() from None
        if "error" in reply:
            raise LoadError(reply["error"], hint=reply["hint"])
        self._idle = not reply.get("going_on", False)
        return reply, answer

    def ask(
        self, command: wire.Message, blob: bytes, expected_s: float
    ) -> tuple[wire.Message, bytes]:
        """Send one command and wait for its reply."""
        self.tell(command, blob)
        return self.hear(expected_s)

    def _await_reply(self, timeout_s: float) -> None:
        waiting = poll()
        waiting.register(self._replies, POLLIN)
        started = time.monotonic()
        # What came along with the reply before lies in the buffer already: no poll tells of it.
        if not self._buffered() and not waiting.poll(timeout_s * 1000):
            raise LoadError(
                f"the load generator did not answer within {time.monotonic() - started:.0f} s",
                hint="is this machine overloaded or suspended? Run the trial again",
            )

    def _buffered(self) -> bool:
        """Whether something has been read from the pipe that was not asked for yet."""
        os.set_blocking(self._replies.fileno(), False)
        try:
            return bool(self._replies.peek(1))
        finally:
            os.set_blocking(self._replies.fileno(), True)

    def death(self) -> LoadError:
        """Say how the process ended, with its last words."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        code = self._process.returncode
        if code is None:
            ended = "closed its pipe"
        elif code < 0:
            ended = f"was killed by {signal.Signals(-code).name}"
        else:
            ended = f"exited with code {code}"
        self._stderr.seek(max(self._stderr.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        words = self._stderr.read().decode(errors="replace")
        tail = "\n".join(words.strip().splitlines()[-_TAIL_LINES:])
        return LoadError(
            f"the load generator process {ended}",
            hint=f"its last output:\n{tail}" if tail else "did the system run out of memory?",
        )
