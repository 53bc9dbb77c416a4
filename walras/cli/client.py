"""A small synchronous client of a Walras server: JSON in, JSON out, Kubernetes' errors as Walras' own."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import httpx
import msgspec

from walras.cli.target import Target
from walras.core.errors import NotFound, ServiceUnavailable, Timeout, Unauthorized, WalrasError

Object = dict[str, Any]
WALRAS: Final = "apis/walras.dev/v1alpha1"
CLUSTER_ANNOTATION: Final = "walras.dev/cluster"
CONNECT_S: Final = 5.0


def _error_types(base: type[WalrasError]) -> Iterator[type[WalrasError]]:
    for sub in base.__subclasses__():
        yield from _error_types(sub)
        yield sub


# Those that inherit their reason, or are told it, are no reason's own.
_BY_REASON: Final = {error.reason: error for error in _error_types(WalrasError) if "reason" in vars(error)}


def _error_of(status: Object) -> WalrasError:
    details = status.get("details") or {}
    if status.get("reason") == "NotFound" and details.get("kind") == "clusters":
        return NotFound(
            f'there is no agent "{details.get("name")}"; `walras agent list` shows those there are'
        )
    kind = _BY_REASON.get(str(status.get("reason")), WalrasError)
    return kind(str(status.get("message") or f"the server answered {status.get('code')}"))


class Client:
    """A connection to the server of a target. Close it, or use it as a context manager."""

    def __init__(self, target: Target, *, timeout_s: float = 30) -> None:
        self.target = target
        access = target.connection
        self._http = httpx.Client(
            base_url=target.base,
            headers={"Authorization": f"Bearer {access.token}", "Accept": "application/json"},
            verify=_tls(access.ca_pem, access.insecure, str(target.source)),
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not _is_loopback(httpx.URL(target.base).host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, *, cluster: str = "", **params: str) -> Object:
        """What the server has at a path below a cluster, by default the target's own."""
        return self._call("GET", path, cluster, params=params)

    def post(self, path: str, body: Object, *, cluster: str = "") -> Object:
        return self._call("POST", path, cluster, json=body)

    def put(self, path: str, body: Object, *, cluster: str = "") -> Object:
        return self._call("PUT", path, cluster, json=body)

    def delete(self, path: str, *, cluster: str = "") -> Object:
        return self._call("DELETE", path, cluster)

    def watch(self, path: str, *, cluster: str = "") -> Iterator[tuple[str, Object]]:
        """The events of a Kubernetes watch, (type, object), until the server ends it."""
        place = f"/clusters/{cluster or self.target.cluster}/{path}"
        timeout = httpx.Timeout(CONNECT_S, read=None)
        with (
            self._failures(),
            self._http.stream("GET", place, params={"watch": "true"}, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                self._decoded(response)
            for line in response.iter_lines():
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") == 410:
                        return
                    raise _error_of(event["object"])
                yield event["type"], event["object"]

    def _call(self, method: str, path: str, cluster: str, **kwargs: Any) -> Object:
        """Raises the WalrasError of a Status, or one that says why the server cannot be reached."""
        with self._failures():
            response = self._http.request(
                method, f"/clusters/{cluster or self.target.cluster}/{path}", **kwargs
            )
        return self._decoded(response)

    def _decoded(self, response: httpx.Response) -> Object:
        try:
            body = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            body = None
        if response.status_code == 401:
            raise Unauthorized(
                f"{self.target.base} does not know the token in {self.target.source}; "
                "it is of an agent that was deleted or of another server"
            )
        if response.is_success and isinstance(body, dict):
            return body
        if isinstance(body, dict) and body.get("kind") == "Status":
            raise _error_of(body)
        raise ServiceUnavailable(
            f"{self.target.base} answered {response.status_code}, not as Walras does; is it another server?"
        )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what can go wrong on the way to the server into errors that say what to do."""
        base = self.target.base
        try:
            yield
        except httpx.TimeoutException:
            raise Timeout(f"{base} does not answer; is `walras up` stopped or overloaded?") from None
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ServiceUnavailable(
                    f"{base} is not the server of {self.target.source}: its certificate is of another CA"
                ) from None
            raise ServiceUnavailable(f"cannot connect to {base}: is `walras up` running?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(f"the connection to {base} failed: {error}") from None


def _tls(ca_pem: str, insecure: bool, source: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except ssl.SSLError:
        raise ServiceUnavailable(f"the CA in {source} is not a PEM certificate") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
