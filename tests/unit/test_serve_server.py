"""The listening socket, before granian takes it over."""

import socket

import pytest

from walras.core.errors import ServiceUnavailable
from walras.kube.serve import server


def test_connections_send_small_pieces_at_once() -> None:
    bound = server._bind("127.0.0.1", 0)
    with bound, socket.create_connection(bound.getsockname()):
        bound.setblocking(True)
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_that_is_taken_is_refused_in_words() -> None:
    with server._bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ServiceUnavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            server._bind("127.0.0.1", port)
