"""What must hold of every input of the two readers: used by hypothesis, by atheris and by hand."""

import itertools
from email import message_from_bytes, policy
from email.utils import getaddresses

from service.mail.address import Address
from service.mail.adopt import adopt, authors
from service.mail.draft import BadDraft, Composed
from service.smtp.framing import LINE_OCTETS, REPLY_OCTETS, BadFraming, Framing
from service.smtp.reply import TEXT_LIMIT
from service.smtp.transcript import Strikeout
from tests.mail.builders import DATE, MESSAGE_ID, is_wire_clean

Heard = tuple[list[tuple[str, object]], str | None]


def hear(pieces: list[bytes]) -> Heard:
    """Frame the pieces; give lines and replies, and the code of what ended it, and see what is kept meanwhile."""
    framing = Framing(Strikeout())
    heard: list[tuple[str, object]] = []
    for piece in pieces:
        try:
            for line, reply in framing.take(piece):
                heard.append((line, reply))
                if reply is not None:
                    assert len(reply.text) <= TEXT_LIMIT
                    assert "\0" not in reply.text
                    reply.as_json()
        except BadFraming as broken:
            return heard, broken.code
        assert len(framing._octets) <= LINE_OCTETS
        assert framing._lines_octets <= REPLY_OCTETS
        assert sum(map(len, framing._lines)) <= REPLY_OCTETS
        assert sum(map(len, framing._known)) <= 64 * 256
    return heard, None


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    """Cut octets at these places, wherever they lie."""
    bounds = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(bounds)]


def replies_hold(octets: bytes, places: list[int]) -> None:
    """However octets are cut, they are the same lines, replies and refusal."""
    assert (
        hear(cut(octets, places))
        == hear([octets])
        == hear([bytes([each]) for each in octets[:2_000]] + [octets[2_000:]])
    )


def raw_holds(raw: bytes) -> Composed | None:
    """A message is refused, or goes over the wire as it should, and has the authors that others see in it."""
    try:
        taken = adopt(raw, message_id=MESSAGE_ID, date=DATE)
    except BadDraft:
        return None
    assert is_wire_clean(taken.octets)
    header, _, _ = taken.octets.partition(b"\r\n\r\n")
    names = [
        line.partition(b":")[0].lower() for line in header.split(b"\r\n") if line[:1] not in {b" ", b"\t"}
    ]
    assert names.count(b"from") == 1
    assert not {b"bcc", b"resent-bcc", b"return-path"} & set(names)
    assert taken.subject.isprintable() or not set(taken.subject) & set("\0\r\n")
    # Taken over once more it stays what it is: nobody reads another message than we did.
    again = adopt(taken.octets, message_id="<other@contoso.com>", date=DATE)
    assert again.octets == taken.octets
    assert authors(raw) == authors(taken.octets)
    _others_agree(taken)
    return taken


def _others_agree(taken: Composed) -> None:
    """The standard library's old reader sees the same fields and the same authors, where it knows the form."""
    parsed = message_from_bytes(taken.octets, policy=policy.compat32)
    # Unfolded first, as RFC 5322 §2.2.3 asks of a reader: it takes a fold in quotes for their end.
    fields = [
        str(each).replace("\r\n", "") for name in ("From", "Sender") for each in parsed.get_all(name, [])
    ]
    ours = {each.key for each in authors(taken.octets)}
    # Of names beyond ASCII it has octets, and of a quoted local part it drops quotes that are needed.
    if all(field.isascii() for field in fields) and not any(
        "\\" in field or '"@' in field for field in fields
    ):
        seen = {Address.parse(address).key for field in fields for _, address in getaddresses([field])}
        assert seen == ours, (seen, ours)
