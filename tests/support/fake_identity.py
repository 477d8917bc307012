"""People for tests: a verifier that knows its tokens, and keys that sign ID tokens the way Google does."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from executions.ports import Identity, IdentityUnavailable

JANE = Identity("1001", "jane@example.org")
JANES_TOKEN = "header.claims-of-jane.signature"
AUDIENCE = "dashboard.apps.googleusercontent.com"


class FakeIdentity:
    """``ports.IdentityVerifier``: knows exactly the tokens in ``people``. ``unavailable`` makes every call fail."""

    def __init__(self) -> None:
        self.people = {JANES_TOKEN: JANE}
        self.unavailable = False
        self.asked: list[str] = []

    async def verify(self, token: str) -> Identity | None:
        self.asked.append(token)
        if self.unavailable:
            raise IdentityUnavailable("the keys are away (test)")
        return self.people.get(token)


class SigningKey:
    """An RSA key with a certificate, as Google publishes them."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key_id)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def token(self, claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> str:
        """A signed token of Jane's; ``claims`` and ``header`` replace single fields, None removes one."""
        now = int(time.time())
        body = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "sub": JANE.subject,
            "email": JANE.email,
            "email_verified": True,
            "iat": now,
            "exp": now + 3600,
        }
        head = {"alg": "RS256", "typ": "JWT", "kid": self.key_id}
        signed = f"{_segment(head, header)}.{_segment(body, claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encoded(signature)}"


def encoded(raw: bytes) -> str:
    """Base64 as tokens use it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _segment(fields: dict[str, Any], changes: dict[str, Any] | None) -> str:
    merged = {name: value for name, value in {**fields, **(changes or {})}.items() if value is not None}
    return encoded(orjson.dumps(merged))
