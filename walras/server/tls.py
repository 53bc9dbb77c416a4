"""A certificate authority of one's own, the server's certificate and the key that signs tokens, made once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from walras.kube import services
from walras.kube.access.certificates import Authority
from walras.kube.access.keys import SigningKey

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 365
# What pods call the server.
_IN_CLUSTER: Final = (
    "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
)  # fmt: skip
# The server's certificate is made anew at a start with less than this left.
RENEW_BEFORE: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificates:
    ca_file: Path
    cert_file: Path
    key_file: Path

    @property
    def ca_pem(self) -> str:
        return self.ca_file.read_text()


def ensure(folder: Path, host: str, now_ms: int) -> Certificates:
    """The certificates in `folder`, made or renewed as needed for `host`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    ca_key_file = folder / "ca.key"
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    if not (paths.ca_file.exists() and ca_key_file.exists()):
        _write_ca(paths.ca_file, ca_key_file, now)
    if not _still_good(paths, host, now):
        _write_server(paths, ca_key_file, host, now)
    return paths


def client_authority(folder: Path, now_ms: int) -> Authority:
    """The authority for client certificates in `folder`, made once. Raises OSError."""
    ca_file, key_file = folder / "clients-ca.crt", folder / "clients-ca.key"
    if not (ca_file.exists() and key_file.exists()):
        _write_ca(ca_file, key_file, datetime.fromtimestamp(now_ms / 1000, UTC), "walras-clients-ca")
    return Authority(ca_file.read_bytes(), key_file.read_bytes())


def signing_key(folder: Path) -> SigningKey:
    """The key of service accounts' tokens in `folder`, made once. Raises OSError, StorageError."""
    path = folder / "serviceaccounts.key"
    if not path.exists():
        _write(path, SigningKey.generate().pem(), 0o600)
    return SigningKey.load(path.read_bytes())


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in ("localhost", *_IN_CLUSTER)]
    addresses = {"127.0.0.1", "::1", str(services.RANGE[1])}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return names + [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(addresses)]


def _still_good(paths: Certificates, host: str, now: datetime) -> bool:
    if not (paths.cert_file.exists() and paths.key_file.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(paths.cert_file.read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return certificate.not_valid_after_utc - now > RENEW_BEFORE and set(_names(host)) <= set(named)


def _write_ca(ca_file: Path, key_file: Path, now: datetime, called: str = "walras-ca") -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signing_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _key_pem(key), 0o600)
    _write(ca_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write_server(paths: Certificates, ca_key_file: Path, host: str, now: datetime) -> None:
    ca = x509.load_pem_x509_certificate(paths.ca_file.read_bytes())
    ca_key = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "walras")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signing_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write(paths.key_file, _key_pem(key), 0o600)
    _write(paths.cert_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _usage(*, signing_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signing_certificates,
        crl_sign=signing_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
