"""What goes between a program or socket of the guest and the server, both held back by windows."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress

from walras.runtimes.vm.guest import wire

Handler = Callable[[int], None]
Send = Callable[[int, int, bytes], None]


class Loop:
    """Descriptors and what is done when they are ready."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        if fd in self._handlers:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def once(self, timeout_s: float) -> None:
        for fd, events in self._poll.poll(timeout_s):
            if (handler := self._handlers.get(fd)) is not None:
                handler(events)


class Relay:
    """The channels of one stream. `outputs` are read, `input_fd` is written; all belong to the relay."""

    def __init__(self, loop: Loop, send: Send, stream: int, outputs: dict[int, int], input_fd: int) -> None:
        self.loop, self._send, self.stream = loop, send, stream
        self.outputs, self.input_fd = outputs, input_fd
        self.end_of_input: Callable[[], None] = self._close_input
        self._credit = dict.fromkeys(outputs, wire.WINDOW)
        self._held = bytearray()
        self._input_ends = False
        # What stands for the end of input where closing does not.
        self.last_words = b""
        for channel in outputs:
            self._listen(channel)

    # Out of the guest

    def _listen(self, channel: int) -> None:
        self.loop.watch(self.outputs[channel], select.EPOLLIN, lambda _: self._ready(channel))

    def _ready(self, channel: int) -> None:
        self.read(channel)

    def read(self, channel: int) -> bool:
        """Sends what is there and may be sent; whether it was anything."""
        fd = self.outputs.get(channel, -1)
        if fd < 0:
            return False
        if not self._credit[channel]:
            self.loop.forget(fd)
            return False
        try:
            data = os.read(fd, min(wire.CHUNK, self._credit[channel]))
        except BlockingIOError:
            return False
        except OSError:
            # So ends a terminal whose programs have gone.
            data = b""
        if not data:
            self._shut(channel)
            return False
        self._credit[channel] -= len(data)
        self._send(wire.DATA, self.stream, bytes((channel,)) + data)
        return True

    def taken(self, channel: int, size: int) -> None:
        if channel in self.outputs:
            self._credit[channel] += size
            self._listen(channel)

    def _shut(self, channel: int) -> None:
        fd = self.outputs.pop(channel)
        self.loop.forget(fd)
        os.close(fd)
        self._send(wire.END, self.stream, bytes((channel,)))

    # Into the guest

    def give(self, data: bytes) -> None:
        self._held += data
        self._write(0)

    def end(self) -> None:
        self._input_ends = not self.last_words
        self.give(self.last_words)

    def _write(self, _events: int) -> None:
        if self.input_fd < 0:
            self._took(len(self._held))
            self._held.clear()
            return
        while self._held:
            try:
                written = os.write(self.input_fd, self._held[: wire.CHUNK])
            except BlockingIOError:
                self.loop.watch(self.input_fd, select.EPOLLOUT, self._write)
                return
            except OSError:
                written = len(self._held)
            del self._held[:written]
            self._took(written)
        self.loop.forget(self.input_fd)
        if self._input_ends:
            with suppress(OSError):  # a connection that was reset has no halves left to end
                self.end_of_input()

    def _took(self, size: int) -> None:
        if size:
            self._send(wire.TAKEN, self.stream, wire.TAKEN_PAYLOAD.pack(wire.STDIN, size))

    def _close_input(self) -> None:
        if self.input_fd >= 0:
            self.loop.forget(self.input_fd)
            os.close(self.input_fd)
            self.input_fd = -1

    def close(self) -> None:
        self._close_input()
        for fd in self.outputs.values():
            self.loop.forget(fd)
            os.close(fd)
        self.outputs.clear()
