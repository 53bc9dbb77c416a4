"""Ports of this machine to listen on: those that are asked for, else free ones."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from contextlib import suppress

from walras.core.errors import Invalid
from walras.server.options import Options


def free_port(host: str, port: int, option: str = "") -> int:
    """`port`, or any free one for 0. Refuses one that is taken before anything is started on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Invalid(
            f'--listen {host}:{port}: "{host}" is no address of this machine: {error.strerror}'
        ) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            option = option or f"--listen {host}:PORT"
            raise Invalid(f"port {port} of {host} {why}; choose another with {option}") from None
        return int(probe.getsockname()[1])


def functions_ports(options: Options, port: int) -> tuple[int, int]:
    """Where functions are served, and where in HTTP/2: not where certificates are. Refuses a port that is
    asked for and taken, or asked for twice."""
    certificates = options.certificates[1] if options.certificates is not None else 0
    asked = {
        "--listen": port,
        "--certificates": certificates,
        "--functions-port": options.functions_port,
        "--functions-http2-port": options.functions_http2_port,
    }
    ports = [each for each in asked.values() if each]
    for each in ports:
        if ports.count(each) > 1:
            names = " and ".join(name for name, of_it in asked.items() if of_it == each)
            raise Invalid(f"{names} are port {each}: each needs one of its own")
    taken = {certificates, options.functions_http2_port}
    found = options.functions_port
    if found is None:
        found = _next_port(options, port, taken)
    else:
        found = free_port(options.host, found, "--functions-port PORT")
    if options.functions_http2_port is None:
        return found, _next_port(options, found, taken | {port, found})
    return found, free_port(options.host, options.functions_http2_port, "--functions-http2-port PORT")


def _next_port(options: Options, port: int, taken: Collection[int | None]) -> int:
    """The one after `port`, or any free one."""
    if options.port and port + 1 not in taken:
        with suppress(Invalid):
            return free_port(options.host, port + 1)
    return free_port(options.host, 0)
