"""The helper of a server without privileges: makes networks in a user namespace, when told to."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

from walras.runtimes.network.acts import NEWNET, Acts, unshare
from walras.runtimes.network.entrance import receive, send

_NEWUSER: Final = 0x10000000
_ACTS: Final = frozenset(("make_agent", "make_pod", "make_tap", "set_rules", "listen", "open_socket"))


def main() -> None:
    """Serves standard input, a socket, until its other end is closed."""
    server = socket.socket(fileno=os.dup(0))
    try:
        _enter()
        user = os.open("/proc/self/ns/user", os.O_RDONLY)
    except OSError as error:
        send(server, (error.errno or 1, f"no user namespace: {error.strerror or error}"), ())
        return
    send(server, (0, ""), (user,))
    os.close(user)
    acts = Acts()
    while True:
        try:
            (act, arguments), descriptors = receive(server)
        except OSError:
            return
        _answer(server, acts, act, arguments, descriptors)


def _enter() -> None:
    uid, gid = os.getuid(), os.getgid()
    # With a network of its own to come back to: it could not enter the host's again.
    unshare(ctypes.CDLL(None, use_errno=True), _NEWUSER | NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def _answer(
    server: socket.socket, acts: Acts, act: str, arguments: tuple[object, ...], descriptors: list[int]
) -> None:
    made = -1
    try:
        assert act in _ACTS
        found = getattr(acts, act)(*descriptors, *arguments)
        made = -1 if found is None else int(found)
        send(server, (0, ""), () if made < 0 else (made,))
    except OSError as error:
        send(server, (error.errno or 1, error.strerror or str(error)), ())
    finally:
        for each in (*descriptors, made):
            if each >= 0:
                os.close(each)
