"""A certificate authority of one test run's own, and a certificate for a server on loopback, in the forms servers read."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

KEYSTORE_PASSWORD = "loopback-only"


class Certificates(NamedTuple):
    """`ca`: the authority's certificate, PEM, what a client trusts. The rest is the server's: its key with its certificate
    as PEM, and the same as PKCS #12 under KEYSTORE_PASSWORD."""

    ca: Path
    server_pem: Path
    server_p12: Path


def make_certificates(folder: Path) -> Certificates:
    """New ones, valid for 30 days, for 127.0.0.1 and localhost."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stagecast tests")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    ca = _builder(ca_name, ca_name, ca_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(_usage(signs_certificates=True), critical=True)
    server = _builder(x509.Name([]), ca_name, key.public_key())
    server = server.add_extension(names, critical=True)  # RFC 5280 §4.2.1.6: critical, as the subject is empty
    server = server.add_extension(_usage(signs_certificates=False), critical=True)
    signed_ca, signed = ca.sign(ca_key, hashes.SHA256()), server.sign(ca_key, hashes.SHA256())

    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.p12")
    made.ca.write_bytes(signed_ca.public_bytes(Encoding.PEM))
    pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made.server_pem.write_bytes(pem_key + signed.public_bytes(Encoding.PEM))
    encryption = BestAvailableEncryption(KEYSTORE_PASSWORD.encode())
    made.server_p12.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, signed, [signed_ca], encryption))
    return made


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
