"""HTTP/2 as callers and instances are spoken to: by the library, which would keep for them what they ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame

from walras.functions.connections import HEAD_BYTES_MAX

# What RFC 7541 begins with; a table is searched from its beginning for every header.
_TABLE_BYTES_MAX: Final = 4096


class _Encoder(Encoder):
    """That of the library remembers as many headers as the other end asks for, and each time that it asks."""

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, _TABLE_BYTES_MAX)
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            # The smallest since the last head, and the last (RFC 7541, section 4.2).
            self.table_size_changes = [min([size, *self.table_size_changes]), size]


class H2(H2Connection):
    """One connection. A GOAWAY is no end: streams end first (RFC 9113, section 6.8)."""

    MAX_CLOSED_STREAMS = 1000

    def __init__(self, *, is_client: bool, settings: Mapping[SettingCodes, int] | None = None) -> None:
        """`settings` beside those of either end."""
        super().__init__(
            H2Configuration(
                client_side=is_client, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        said = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES_MAX}
        self.local_settings = Settings(client=is_client, initial_values={**said, **(settings or {})})
        self.encoder = _Encoder()

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]
