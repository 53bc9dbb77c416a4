"""Names in an agent's cluster, answered from its Services and EndpointSlices.

As the specification of DNS-based service discovery of Kubernetes has them (version 1.1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from walras.runtimes.network import dns
from walras.runtimes.network.forwards import chosen, ports_of

Object = Mapping[str, Any]
DOMAIN: Final = ("cluster", "local")
_REVERSE: Final = ("in-addr", "arpa")
_API: Final = ("kubernetes", "default")
API_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Found:
    """What is behind a name; `elsewhere` where it is another one of somewhere else."""

    addresses: Sequence[str] = ()
    # Port, and the host's labels and address.
    servers: Sequence[tuple[int, tuple[str, ...], str]] = field(default=())
    elsewhere: str = ""


class Names:
    """`service` finds one by namespace and name, `slices` those of a Service, `api` is the API server's.

    `services`: all there are.
    """

    def __init__(
        self,
        service: Callable[[str, str], Object | None],
        slices: Callable[[str, str], Sequence[Object]],
        api: str,
        services: Callable[[], Iterable[Object]] = tuple,
    ) -> None:
        self._service, self._slices, self._api = service, slices, api
        self._services = services

    def answer(self, query: bytes, *, bytes_max: int) -> bytes:
        """The whole answer to a query; nothing to what deserves none."""
        try:
            question = dns.read(query)
        except ValueError:
            return dns.malformed(query)
        if not dns.understood(question):
            return dns.answer(question, dns.NOT_IMPLEMENTED)
        if question.name[-len(_REVERSE) :] == _REVERSE:
            return self._reverse(question)
        if question.name[-len(DOMAIN) :] != DOMAIN:
            return dns.answer(question, dns.REFUSED)
        found = self._find(question.name[: -len(DOMAIN)])
        if found is None:
            return dns.answer(question, dns.NO_SUCH_NAME)
        try:
            records, extra = _records(found, question.kind)
            records += self._followed(found, question.kind)
        except ValueError:
            return dns.answer(question, dns.NO_SUCH_NAME)
        return dns.answer(question, dns.NO_ERROR, records, extra, bytes_max=bytes_max)

    def _reverse(self, question: dns.Question) -> bytes:
        """The name of the Service that an address is of."""
        address = ".".join(reversed(question.name[: -len(_REVERSE)]))
        name = _API if address == self._api else next(self._called(address), None)
        if name is None:
            return dns.answer(question, dns.NO_SUCH_NAME)
        record = dns.Record(dns.PTR, dns.name_of((*name, "svc", *DOMAIN)))
        return dns.answer(question, dns.NO_ERROR, [record] if question.kind in (dns.PTR, dns.ANY) else [])

    def _called(self, address: str) -> Iterator[tuple[str, str]]:
        for service in self._services():
            if address and service["spec"].get("clusterIP") == address:
                yield str(service["metadata"]["name"]), str(service["metadata"]["namespace"])

    def _followed(self, alias: Found, kind: int) -> list[dns.Record]:
        """The addresses behind an alias of a name of the cluster: no pod's resolver asks for them itself."""
        labels = tuple(alias.elsewhere.rstrip(".").lower().split("."))
        if labels[-len(DOMAIN) :] != DOMAIN or kind not in (dns.A, dns.ANY):
            return []
        found, name = self._find(labels[: -len(DOMAIN)]), dns.name_of(labels)
        return [dns.address(each, name) for each in found.addresses] if found is not None else []

    def _find(self, name: tuple[str, ...]) -> Found | None:
        """None for a name that is not there."""
        match name:
            case () | ("svc",) | ("pod",) | (_, "svc" | "pod"):
                return Found()
            case (dashed, _, "pod"):
                return _pod(dashed)
            case (service, namespace, "svc"):
                return self._of_service(namespace, service)
            case (port, protocol, service, namespace, "svc") if port[:1] == protocol[:1] == "_":
                return self._of_port(namespace, service, port[1:], protocol[1:])
            case (host, service, namespace, "svc"):
                return self._of_host(namespace, service, host)
            case _:
                return None

    def _of_service(self, namespace: str, name: str) -> Found | None:
        if (name, namespace) == _API:
            return Found([self._api], [(API_PORT, (*_API, "svc", *DOMAIN), self._api)])
        service = self._service(namespace, name)
        if service is None:
            return None
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return Found(elsewhere=str(spec.get("externalName") or ""))
        if spec.get("clusterIP") not in (None, "", "None"):
            return Found([str(spec["clusterIP"])], list(self._servers(service, "", "")))
        return Found(
            [address for address, _, _ in self._endpoints(namespace, name)],
            list(self._servers(service, "", "")),
        )

    def _of_port(self, namespace: str, name: str, port: str, protocol: str) -> Found | None:
        if (name, namespace) == _API and (port, protocol) == ("https", "tcp"):
            return self._of_service(namespace, name)
        service = self._service(namespace, name)
        if service is None:
            return None
        servers = list(self._servers(service, port, protocol.upper()))
        return Found(servers=servers) if servers else None

    def _of_host(self, namespace: str, name: str, host: str) -> Found | None:
        found = [address for address, known, _ in self._endpoints(namespace, name) if known == host]
        return Found(found) if found else None

    def _endpoints(self, namespace: str, name: str) -> Iterator[tuple[str, str, Object]]:
        """Address, host name and slice of each endpoint that gets traffic."""
        for endpoint, piece in chosen(self._slices(namespace, name)):
            for address in endpoint.get("addresses") or ():
                yield str(address), _host(str(endpoint.get("hostname") or ""), str(address)), piece

    def _servers(
        self, service: Object, port: str, protocol: str
    ) -> Iterator[tuple[int, tuple[str, ...], str]]:
        """Of the ports with a name, or of the one that is named."""
        metadata, spec = service["metadata"], service["spec"]
        own = (str(metadata["name"]), str(metadata["namespace"]), "svc", *DOMAIN)

        def asked(each: Object) -> bool:
            known = str(each.get("name") or "")
            return bool(known) and (
                not port or (port, protocol) == (known, str(each.get("protocol") or "TCP"))
            )

        if spec.get("clusterIP") not in (None, "", "None"):
            for each in spec.get("ports") or ():
                if asked(each):
                    yield int(each["port"]), own, str(spec["clusterIP"])
            return
        for address, host, piece in self._endpoints(own[1], own[0]):
            for each in ports_of(piece):
                if asked(each):
                    yield int(each["port"]), (host, *own), address


def _host(given: str, address: str) -> str:
    return given or address.replace(".", "-")


def _pod(dashed: str) -> Found | None:
    try:
        return Found([str(IPv4Address(dashed.replace("-", ".")))])
    except AddressValueError:
        return None


def _records(found: Found, kind: int) -> tuple[list[dns.Record], list[dns.Record]]:
    if found.elsewhere:
        return [dns.Record(dns.CNAME, dns.name_of(found.elsewhere.rstrip(".").split(".")))], []
    records, extra = [], []
    if kind in (dns.A, dns.ANY):
        records += [dns.address(each) for each in found.addresses]
    if kind in (dns.SRV, dns.ANY):
        for port, host, address in found.servers:
            target = dns.name_of(host)
            records.append(dns.service(port, target))
            extra.append(dns.address(address, target))
    return records, extra
