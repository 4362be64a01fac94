"""What is kept of what was taken, and where."""

from pathlib import Path

from service.sandbox.content import read_head
from service.sandbox.mailroom import Carried, Mailroom, Taken
from tests.sandbox.client import message


def test_content_beyond_the_memory_lies_in_files(tmp_path: Path) -> None:
    """The newest stays in memory, the older moves to disk, and both are read back alike."""
    room = _room(tmp_path, memory_octets=300)
    kept = [_take(room, number) for number in range(5)]

    assert [room.content(taken.id) for taken in kept] == [message(number) for number in range(5)]
    assert 0 < len(list((tmp_path / "spool").iterdir())) < 5


def test_the_oldest_are_forgotten_by_number(tmp_path: Path) -> None:
    """Beyond the number that is kept, a message and its file are gone, but were counted."""
    room = _room(tmp_path, keep_messages=2, memory_octets=0)
    kept = [_take(room, number) for number in range(4)]

    assert [taken.id for taken in room] == [taken.id for taken in kept[2:]]
    assert room.content(kept[0].id) is None
    assert len(list((tmp_path / "spool").iterdir())) == 2
    assert room.total == 4


def test_the_oldest_are_forgotten_by_octets(tmp_path: Path) -> None:
    """The content of all messages together has a limit too."""
    room = _room(tmp_path, keep_octets=len(message()) * 2)
    for number in range(4):
        _take(room, number)

    assert [taken.message_id for taken in room] == ["<2@contoso.com>", "<3@contoso.com>"]


def test_a_new_mailroom_removes_what_an_earlier_one_left(tmp_path: Path) -> None:
    """After a crash the spilled files of the last run go away."""
    _take(_room(tmp_path, memory_octets=0), 1)

    room = _room(tmp_path)

    assert list(room) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_without_a_message_id_nothing_is_a_duplicate(tmp_path: Path) -> None:
    """The store recognises a copy by Message-ID and Date, and by nothing else."""
    room = _room(tmp_path)
    octets = b"From: <noreply@contoso.com>\r\n\r\nsame\r\n"

    assert [_take(room, 1, octets=octets).duplicate_of for _ in range(2)] == [None, None]


def _room(
    folder: Path, *, keep_messages: int = 10, keep_octets: int = 10_000, memory_octets: int = 10_000
) -> Mailroom:
    return Mailroom(
        folder=folder / "spool",
        keep_messages=keep_messages,
        keep_octets=keep_octets,
        memory_octets=memory_octets,
    )


def _take(room: Mailroom, number: int, *, octets: bytes | None = None) -> Taken:
    content = octets or message(number)
    carried = Carried(
        door="submission", mailbox="noreply@contoso.com", method="login", session="08DF49CE31309416", tls="TLSv1.3",
        client="127.0.0.1", hello="client.example", reverse_path="noreply@contoso.com", recipients=("a@b.example",),
    )  # fmt: skip
    return room.take(content, read_head(content), carried=carried, delay=0, sent_items=True)
