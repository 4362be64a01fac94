"""`NameServer`: a small DNS server on a free port of 127.0.0.1, over UDP and TCP.

    async with NameServer() as dns:
        dns.has("contoso.com", "MX", "10 mail.contoso.com.", ttl=300)
        finder = MxFinder(dns.resolver())

It answers from what it was told to have, along aliases, with NXDOMAIN for a name that it does not know.
`trouble` (an rcode, or "silent") changes its mood; `truncates` makes UDP answers say "ask again over TCP".
`asked` has every question: name, type, and "udp" or "tcp". `hold` makes it wait before each answer.
"""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Literal, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from service.routes.mx import Resolver

Mood = Literal["SERVFAIL", "REFUSED", "silent"]


class NameServer(asyncio.DatagramProtocol):
    """Answers questions about its own little world."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.trouble: Mood | None = None
        self.truncates = False
        self.hold: asyncio.Event | None = None
        self.port = 0
        self._records: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def has(self, name: str, rdtype: str, *records: str, ttl: int = 300) -> None:
        """Let a name have these records, and no others of this type."""
        self._records[name, rdtype] = dns.rrset.from_text(f"{name}.", ttl, "IN", rdtype, *records)

    def loses(self, name: str, rdtype: str) -> None:
        """Forget the records of a name."""
        del self._records[name, rdtype]

    def resolver(self, *, timeout: float = 5.0) -> Resolver:
        """Give what a finder needs to ask here."""
        return Resolver(nameservers=(("127.0.0.1", self.port),), timeout=timeout)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        both = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        both.bind(("127.0.0.1", self.port))
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: self, sock=both)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, trouble: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._datagrams.close()
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._answer_datagram(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self._answer(data, "udp")
        if answer is not None:
            self._datagrams.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = await self._answer(await reader.readexactly(length), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        writer.close()

    async def _answer(self, data: bytes, way: str) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, rdtype = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, rdtype, way))
        if self.hold is not None:
            await self.hold.wait()
        if self.trouble == "silent":
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.trouble is not None:
            answer.set_rcode(dns.rcode.from_text(self.trouble))
        elif self.truncates and way == "udp":
            answer.flags |= dns.flags.TC
        else:
            self._fill(answer, name, rdtype)
        return answer.to_wire()

    def _fill(self, answer: dns.message.Message, name: str, rdtype: str) -> None:
        while (name, rdtype) not in self._records and (name, "CNAME") in self._records:
            alias = self._records[name, "CNAME"]
            answer.answer.append(alias)
            name = str(alias[0].target.to_text(omit_final_dot=True))
        if (name, rdtype) in self._records:
            answer.answer.append(self._records[name, rdtype])
        elif name not in {known for known, _ in self._records}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
