"""The key that signs the tokens of service accounts: JSON Web Tokens (RFC 7519) with ES256 (RFC 7518)."""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from jwt.api_jws import PyJWS

from walras.core.errors import StorageError

ALGORITHM: Final = "ES256"
TOKEN_BYTES_MAX: Final = 16 << 10
# Tokens whose signature is known to be good, of all clusters together.
KNOWN_MAX: Final = 4096


class SigningKey:
    """Signs and verifies. There is one key, so nothing in a token chooses it, nor the algorithm."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        assert isinstance(key.curve, ec.SECP256R1)
        self._key, self._public = key, key.public_key()
        der = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.id = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        self._jws = PyJWS(algorithms=[ALGORITHM])
        # The one header of every token, signed ones being all alike: no other is looked into.
        self._header = self.sign({}).partition(".")[0] + "."
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, pem: bytes) -> SigningKey:
        """Raises StorageError for anything but a P-256 private key."""
        try:
            key = serialization.load_pem_private_key(pem, None)
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise StorageError(
                "the service account key is not a P-256 private key in PEM; remove it for a new one"
            )
        return cls(key)

    def pem(self) -> bytes:
        """The private key, to be kept."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        key = ECAlgorithm.to_jwk(self._public, as_dict=True)
        return {"keys": [{"use": "sig", **key, "kid": self.id, "alg": ALGORITHM}]}

    def sign(self, claims: dict[str, Any]) -> str:
        return self._jws.encode(
            msgspec.json.encode(claims), self._key, ALGORITHM, {"kid": self.id, "typ": None}
        )

    def is_news(self, token: str) -> bool:
        """Whether the token has the form of one, and its signature has yet to be verified."""
        if len(token) > TOKEN_BYTES_MAX or not token.startswith(self._header) or not token.isascii():
            return False
        return hashlib.sha256(token.encode()).digest() not in self._known

    def verified(self, token: str) -> bytes | None:
        """The claims, as JSON, of a token that this key has signed; None for any other."""
        if len(token) > TOKEN_BYTES_MAX or not token.startswith(self._header) or not token.isascii():
            return None
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._known.get(digest)
        if claims is not None:
            self._known.move_to_end(digest)
            return claims
        try:
            claims = bytes(self._jws.decode(token, self._public, algorithms=[ALGORITHM]))
        except jwt.PyJWTError:
            return None
        self._known[digest] = claims
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return claims
