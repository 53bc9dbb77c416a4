"""Client certificates: who they are of, signed by one authority for one cluster each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from walras.core.errors import BadRequest
from walras.kube.access.words import AUTHENTICATED, MASTERS
from walras.kube.api import API
from walras.kube.context import Identity

SIGNER: Final = "kubernetes.io/kube-apiserver-client"
LIFETIME_S: Final = 365 * 86_400
LIFETIME_S_MIN: Final = 600
REQUEST_BYTES_MAX: Final = 8 << 10
# A longer key makes whoever verifies it work for longer.
RSA_BITS: Final = (2048, 4096)
_BACKDATED: Final = timedelta(minutes=5)
_SCHEME: Final = "walras"
# The namespace whose uid tells a cluster from another that had its name before.
_CLUSTER_NAMESPACE: Final = "kube-system"


def cluster_id(api: API, cluster: str) -> str:
    """What tells the cluster from any other of its name; "" when there is none."""
    if not api.has_cluster(cluster):
        return ""
    found = api.find(cluster, "namespaces", "", _CLUSTER_NAMESPACE)
    return str(found["metadata"]["uid"]) if found else ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a certificate is of, in which cluster, and until when."""

    user: str
    groups: tuple[str, ...]
    cluster: str
    cluster_id: str
    expires_ms: int

    def identity(self, api: API) -> Identity | None:
        """Who calls with it now; None once it is over, or its cluster is gone."""
        if self.expires_ms <= api.clock.now_ms() or not self.cluster_id:
            return None
        if cluster_id(api, self.cluster) != self.cluster_id or MASTERS in self.groups:
            return None
        return Identity(self.user, (*self.groups, AUTHENTICATED), self.cluster)


def holder(der: bytes) -> Holder | None:
    """Whom a certificate, whose chain was verified, is of; None when it is not of this form."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        users = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        expires = certificate.not_valid_after_utc
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    if len(users) != 1 or len(uris) != 1 or len(names) != 1 or not users[0].value:
        return None
    uri = urlsplit(uris[0])
    _, cluster, identity, *more = (*uri.path.split("/"), "", "")
    if uri.scheme != _SCHEME or uri.netloc != "clusters" or not cluster or not identity or any(more):
        return None
    return Holder(
        str(users[0].value),
        tuple(str(each.value) for each in groups),
        unquote(cluster),
        identity,
        int(expires.timestamp() * 1000),
    )


def request_of(pem: bytes) -> x509.CertificateSigningRequest:
    """A request that its own key has signed. Raises BadRequest."""
    if len(pem) > REQUEST_BYTES_MAX:
        raise BadRequest(f"the request is larger than {REQUEST_BYTES_MAX} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        if isinstance(key, rsa.RSAPublicKey) and not RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
            raise BadRequest(f"an RSA key has {RSA_BITS[0]} to {RSA_BITS[1]} bits")
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise BadRequest("the key is of no kind that TLS clients use")
        if not request.is_signature_valid:
            raise BadRequest("the request is not signed by its own key")
    except (ValueError, TypeError, InvalidSignature, x509.InvalidVersion):
        raise BadRequest("PEM block type must be CERTIFICATE REQUEST, and hold one") from None
    return request


def groups_of(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    """The groups that a request asks for."""
    return tuple(
        str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    )


def usage_fault(usages: Sequence[str]) -> str:
    """Why the signer does not give a certificate for these usages, in Kubernetes' words; "" when it does."""
    for usage in usages:
        if usage not in ("digital signature", "key encipherment", "client auth"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


class Authority:
    """Signs what was approved. `certificate` is PEM: whom the server believes about its clients."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate
        self._ca = x509.load_pem_x509_certificate(certificate)
        loaded = serialization.load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        cluster: str,
        identity: str,
        now_ms: int,
        lifetime_s: int = LIFETIME_S,
    ) -> bytes:
        """A certificate in PEM for the subject and key of the request, good in the cluster alone.

        Nothing else of the request is in it: above all no name by which it would be of another cluster.
        """
        assert cluster and identity
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        seconds = min(max(lifetime_s, LIFETIME_S_MIN), LIFETIME_S)
        ends = min(now + timedelta(seconds=seconds), self._ca.not_valid_after_utc)
        uri = x509.UniformResourceIdentifier(f"{_SCHEME}://clusters/{quote(cluster, safe='')}/{identity}")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._ca.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)
