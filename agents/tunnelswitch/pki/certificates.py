"""An own certificate authority, and what it vouches for (RFC 5280). Elliptic curve keys, P-256: NATS and OVS take them.

A certificate is made for a key that is there, and again when it runs out; a key is made once.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunnelswitch.errors import PkiError

CA_DAYS = 3650
CERTIFICATE_DAYS = 730
RENEW_DAYS = 60
"""So long before its end a certificate is spoken of."""
_BACKDATED = datetime.timedelta(hours=1)
"""Clocks of other machines may be behind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One certificate. `hosts` are the addresses and names that clients know a server by; a client has none. `pinned`:
    the other side trusts this very certificate and no other, and no authority is asked."""

    name: str
    hosts: tuple[str, ...] = ()
    server: bool = False
    client: bool = False
    pinned: bool = False


class Authority:
    """The authority whose key and certificate are these files; they are made if neither is there.

    Raises:
        PkiError: one is there without the other, or cannot be used.
        OSError: they cannot be read or written.
    """

    def __init__(self, key: Path, certificate: Path, name: str) -> None:
        if not key.exists() and certificate.exists():
            raise PkiError(f"{certificate} is there, and its key {key} is not", "bring the key back to vouch for more")
        self._key = load_or_make_key(key)
        if not certificate.exists():
            _write(certificate, self._self_signed(name), 0o644)
        self._certificate = load_certificate(certificate)
        if self._certificate.public_key() != self._key.public_key():
            raise PkiError(f"{key} is not the key of {certificate}", "bring back the two that belong together")

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """The certificate, with this authority as its issuer."""
        public = self._key.public_key()
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
        vouched = builder.issuer_name(self._certificate.subject).add_extension(identifier, critical=False)
        return vouched.sign(self._key, hashes.SHA256())

    def _self_signed(self, name: str) -> x509.Certificate:
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        public = self._key.public_key()
        return (
            _builder(_named(name), public, CA_DAYS)
            .issuer_name(_named(name))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def certify(wanted: Wanted, key: Path, certificate: Path, authority: Authority | None) -> None:
    """Write a certificate for the key in a file, which is made if there is none.

    Args:
        authority: None for one that vouches for itself.

    Raises:
        PkiError: the key cannot be used.
        OSError: a file cannot be read or written.
    """
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] * wanted.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * wanted.client
    own = load_or_make_key(key)
    name, public = _named(wanted.name), own.public_key()
    builder = (
        _builder(name, public, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(wanted)), critical=False)
    )
    if authority is None:
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        signed = builder.issuer_name(name).add_extension(identifier, critical=False).sign(own, hashes.SHA256())
    else:
        signed = authority.sign(builder)
    _write(certificate, signed, 0o644)


def load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file, which its owner alone can read; made if there is none.

    Raises:
        PkiError: what is there is no such key.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        text = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PkiError(f"{path} holds no private key that can be used", "move it away, and run again") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} is not an elliptic curve key", "move it away, and run again")
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file.

    Raises:
        PkiError: there is none in it.
        OSError: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise PkiError(f"{path} holds no certificate", "move it away, and run again") from None


def ends_soon(path: Path) -> datetime.datetime | None:
    """When the certificate in a file ends, if that is soon.

    Raises:
        PkiError, OSError: as `load_certificate`.
    """
    end = load_certificate(path).not_valid_after_utc
    return end if end - _now() < datetime.timedelta(days=RENEW_DAYS) else None


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _BACKDATED)
        .not_valid_after(_now() + datetime.timedelta(days=days))
    )


def _alternatives(wanted: Wanted) -> Iterable[x509.GeneralName]:
    """Names of servers are checked here alone (RFC 9525); a client's only tells people whose it is."""
    for host in dict.fromkeys(wanted.hosts or (wanted.name.replace("/", "."),)):
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            yield x509.DNSName(host)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(path: Path, certificate: x509.Certificate, mode: int) -> None:
    """Whole or not at all: a server may be reading it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    temporary.chmod(mode)
    temporary.replace(path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
