"""TLS over the octets of a connection, so that a door can ask for a client certificate and judge it itself.

Exchange Online does not end the handshake over a client certificate that it cannot use: the client
is a stranger then, and hears 5.7.64 where it wanted to relay. Python's ssl knows no such leniency:
a certificate that does not verify is an alert. So the client's `Certificate` message is read on its
way in, and OpenSSL is told to trust exactly this certificate, whatever its date, purpose and issuer.
What OpenSSL then proves is that the client holds the key; who the client is, trust.py decides. Still
refused are chains that break X.509 itself, such as an issuer that is no authority.

The message can be read in TLS 1.2, where it goes in clear text (RFC 5246 §7.4), and not in 1.3. A
door that asks for certificates speaks 1.2 only, which is the version that Microsoft's guide names.
"""

import base64
import contextlib
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

_HANDSHAKE, _CHANGE_CIPHER_SPEC = 22, 20  # content types (RFC 5246 §6.2.1)
_CERTIFICATE = 11  # handshake type (RFC 5246 §7.4)
_MOST = 256 * 1024  # octets of a handshake that are looked at
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; the ssl module has no name for it
# A certificate in OpenSSL's "trusted" form carries what it is trusted for: any extended key usage.
_TRUSTED_FOR_ANYTHING = bytes.fromhex("300830060604551D2500")

Maker = Callable[[], "Tls"]


class Tls:
    """One side of a TLS connection: octets from the line in, octets for the line out."""

    def __init__(self, context: ssl.SSLContext, *, spy: "_CertificateSpy | None" = None) -> None:
        """`spy` sees what comes in before OpenSSL does."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._spy = spy
        self.ready = False  # the handshake is done
        self.closed = False  # the client said that it will send no more

    @property
    def version(self) -> str | None:
        """Such as TLSv1.3; None before the handshake is done."""
        return self._object.version()

    @property
    def shown(self) -> tuple[bytes, ...]:
        """The client's certificates (DER), its own first; it holds the key of that one."""
        if self._spy is None or not self.ready or not self._spy.shown:
            return ()
        proven = self._object.getpeercert(binary_form=True)
        return self._spy.shown if proven == self._spy.shown[0] else ()

    def receive(self, octets: bytes) -> bytes:
        """Take what came over the line and return what it says. Raises ssl.SSLError."""
        if self._spy is not None and not self.ready:
            self._spy.feed(octets)
        self._incoming.write(octets)
        said = bytearray()
        try:
            if not self.ready:
                self._object.do_handshake()
                self.ready = True
            while piece := self._object.read(64 * 1024):
                said += piece
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return bytes(said)

    def seal(self, octets: bytes) -> bytes:
        """Return what goes over the line for these octets."""
        self._object.write(octets)
        return self.pending()

    def pending(self) -> bytes:
        """Return what TLS itself has to say: handshake, alerts, tickets."""
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Return the words that end the TLS connection."""
        with contextlib.suppress(ssl.SSLError):  # it waits for the client's own goodbye, and we do not
            self._object.unwrap()
        return self.pending()


def plain(certificate_file: Path, key_file: Path) -> Maker:
    """Return a maker of connections that ask for no certificate."""
    context = _context(certificate_file, key_file)
    return lambda: Tls(context)


def asking(certificate_file: Path, key_file: Path) -> Maker:
    """Return a maker of connections that ask for a client certificate and take any."""

    def make() -> Tls:
        # A context of its own each time: it learns to trust what this one client shows.
        context = _context(certificate_file, key_file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags |= _NO_CHECK_TIME
        # A resumed session would come without the certificate.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        return Tls(context, spy=_CertificateSpy(lambda certificate: _trust(context, certificate)))

    return make


def _context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate_file, key_file)
    return context


def _trust(context: ssl.SSLContext, certificate: bytes) -> None:
    """Let the context take this certificate (DER), whoever issued it and whatever for."""
    encoded = base64.encodebytes(certificate + _TRUSTED_FOR_ANYTHING).decode()
    with tempfile.NamedTemporaryFile(
        "w", suffix=".pem"
    ) as file:  # the module reads this form from files only
        file.write(f"-----BEGIN TRUSTED CERTIFICATE-----\n{encoded}-----END TRUSTED CERTIFICATE-----\n")
        file.flush()
        with contextlib.suppress(ssl.SSLError):  # no certificate at all: OpenSSL finds out by itself
            context.load_verify_locations(cafile=file.name)


class _CertificateSpy:
    """Reads the client's `Certificate` message out of a TLS 1.2 handshake."""

    def __init__(self, found: Callable[[bytes], None]) -> None:
        """`found` gets the client's own certificate, before OpenSSL has seen it."""
        self._found = found
        self._records = bytearray()
        self._messages = bytearray()
        self._looked_at = 0
        self._over = False
        self.shown: tuple[bytes, ...] = ()

    def feed(self, octets: bytes) -> None:
        """Look at what came from the client."""
        self._looked_at += len(octets)
        if self._over or self._looked_at > _MOST:
            return
        self._records += octets
        while not self._over and len(self._records) >= 5:
            kind, length = self._records[0], int.from_bytes(self._records[3:5])
            if len(self._records) < 5 + length:
                return
            if kind == _HANDSHAKE:
                self._messages += self._records[5 : 5 + length]
                self._read_messages()
            self._over = self._over or kind == _CHANGE_CIPHER_SPEC
            del self._records[: 5 + length]

    def _read_messages(self) -> None:
        while len(self._messages) >= 4:
            kind, length = self._messages[0], int.from_bytes(self._messages[1:4])
            if len(self._messages) < 4 + length:
                return
            body = bytes(self._messages[4 : 4 + length])
            del self._messages[: 4 + length]
            if kind == _CERTIFICATE:
                self._over = True
                self.shown = _certificates(body)
                if self.shown:
                    self._found(self.shown[0])


def _certificates(body: bytes) -> tuple[bytes, ...]:
    """Read a list of certificates, each with its length in three octets (RFC 5246 §7.4.2)."""
    found = []
    left = body[3:]
    while len(left) >= 3:
        length = int.from_bytes(left[:3])
        found.append(left[3 : 3 + length])
        left = left[3 + length :]
    return tuple(found)
