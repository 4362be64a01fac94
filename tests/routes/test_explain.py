"""Any pasted text: what is found in it, what it means, and that nothing is made up."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.routes.diagnoses.explain import LONGEST, explain
from service.routes.route import RouteKind
from service.smtp.phase import Phase

TRAILER = " [SB0P365CA0001.PROD.OUTLOOK.COM 2026-10-08T20:36:23.875Z 08DF254F56560914]"
DISABLED = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
    "Visit https://aka.ms/smtp_auth_disabled for more information." + TRAILER
)
TENANT = "exo.smtp_auth_disabled_for_tenant"


def id_of(text: str, **known: RouteKind | Phase) -> str | None:
    diagnosis = explain(text, **known).diagnosis  # type: ignore[arg-type]  # kind and phase by their names
    return None if diagnosis is None else diagnosis.id


# -- one reply, in many dresses --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        DISABLED,
        f"  {DISABLED}\r\n",
        f'"{DISABLED}"',
        f"'{DISABLED}'",
        f"“{DISABLED}”",
        f"«{DISABLED}»",
        f"`{DISABLED}`",
        f"> {DISABLED}",
        DISABLED.replace("535 ", "535-", 1),
        DISABLED.replace(" ", "\n"),
        DISABLED.replace(" ", "\r\n\t"),
        DISABLED.upper().replace("T20:36", "T20:36"),
        DISABLED.replace("SmtpClientAuthentication is", "SmtpClientAuthentication =\r\nis"),
        f"Error: Invalid login: {DISABLED}\n    at SMTPConnection._formatError (x.js:798:19)\n  code: 'EAUTH'",
        f"smtplib.SMTPAuthenticationError: (535, b'{DISABLED[4:]}')",
        f"(535, '{DISABLED[4:]}')",
        f'{{"level":"error","msg":"login failed: {DISABLED}"}}',
        f"SMTP ERROR: Password command failed: {DISABLED}\nSMTP Error: Could not authenticate.",
        f"2026-05-05 10:00:00\tSERVER -> CLIENT: {DISABLED}",
        f"mail: smtp.office365.com:587: {DISABLED}",
        f"permanent error (535): {DISABLED[4:]}",
        f"<p>{DISABLED.replace(' is ', '&nbsp;is&nbsp;')}</p>",
    ],
)
def test_a_reply_is_found_in_every_dress(text: str) -> None:
    """Quotes, brackets, line breaks, prefixes of logs and names of exceptions change nothing."""
    found = explain(text)

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.enhanced) == (535, "5.7.139")
    assert found.recognized.phase in {Phase.AUTH, None}
    assert found.diagnosis is not None
    assert found.diagnosis.id == TENANT


@pytest.mark.parametrize("width", [57, 60, 72, 80])
def test_a_terminal_may_break_words(width: int) -> None:
    """A line break stands for a space or for nothing; both readings are tried."""
    broken = "\n".join(DISABLED[start : start + width] for start in range(0, len(DISABLED), width))

    assert id_of(broken) == TENANT


def test_numbers_may_be_broken_too() -> None:
    assert (
        id_of(
            "535 5.7.\n139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant"
        )
        == TENANT
    )


def test_the_lines_of_one_reply_are_put_together() -> None:
    """Every line repeats code and status; the text does not."""
    found = explain("550-5.7.1 Message rejected\n550-5.7.1 by the policy of\n550 5.7.1 example.com")

    assert found.recognized is not None
    assert found.recognized.text == "Message rejected by the policy of example.com"


def test_lines_without_a_status_are_put_together() -> None:
    found = explain("550-Mail from this network\n550 relay not permitted")

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.enhanced) == (550, None)
    assert found.recognized.text == "Mail from this network relay not permitted"


def test_the_trailer_is_kept() -> None:
    """Server, time and session, for a support case."""
    found = explain(DISABLED)

    assert found.trailer is not None
    assert found.trailer.as_json() == {
        "host": "SB0P365CA0001.PROD.OUTLOOK.COM",
        "time": "2026-10-08T20:36:23.875Z",
        "session": "08DF254F56560914",
    }


# -- prefixes that tell the phase ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phase", "id_"),
    [
        ("status=deferred (host mx.example.com[203.0.113.9] said: 451 4.7.500 Server busy. Please try again later from [203.0.113.5]. (S77714) (in reply to RCPT TO command))", Phase.RCPT, "exo.server_busy"),
        ("said: 450 Try again (in reply to end of DATA command)", Phase.REPLY, "smtp.passing_refusal"),
        ("said: 550 Denied (in reply to MAIL FROM command)", Phase.MAIL, "smtp.sender_refused"),
        ("SMTP error from remote mail server after RCPT TO:<ana@example.com>: 550 Access denied", Phase.RCPT, "smtp.recipient_refused"),
        ("SMTP error from remote mail server after MAIL FROM:<ana@example.com> SIZE=2048: 550 Access denied", Phase.MAIL, "smtp.sender_refused"),
        ("SMTP error from remote mail server after end of data: 554 rejected", Phase.REPLY, "smtp.content_refused"),
        ("SMTP error from remote mail server after initial connection: 554 rejected", Phase.GREETING, "smtp.session_refused"),
        ("... while talking to mx.example.com.:\n>>> RCPT To:<ana@example.com>\n<<< 550 5.0.0 Access denied", Phase.RCPT, "smtp.recipient_refused"),
        ("delivery 12: failure: 203.0.113.1_does_not_like_recipient./Remote_host_said:_550_5.4.1_Recipient_address_rejected:_Access_denied./Giving_up_on_203.0.113.1./", Phase.RCPT, "exo.recipient_not_found"),
        ("smtplib.SMTPRecipientsRefused: {'ana@example.com': (550, b'Access denied')}", Phase.RCPT, "smtp.recipient_refused"),
        ("smtplib.SMTPSenderRefused: (550, b'Access denied', 'ana@example.com')", Phase.MAIL, "smtp.sender_refused"),
        ("com.sun.mail.smtp.SMTPAddressFailedException: 550 Access denied", Phase.RCPT, "smtp.recipient_refused"),
        ("Error: Invalid login: 500 denied", Phase.AUTH, "smtp.login_impossible"),
        ("SMTP Error: The following recipients failed: ana@example.com: RCPT TO command failed: 550 Access denied", Phase.RCPT, "smtp.recipient_refused"),
    ],
)  # fmt: skip
def test_a_prefix_tells_the_phase(text: str, phase: Phase, id_: str) -> None:
    """Postfix, Exim, sendmail, qmail, Python, Java, nodemailer, PHPMailer."""
    found = explain(text)

    assert found.recognized is not None
    assert found.recognized.phase is phase
    assert found.diagnosis is not None
    assert found.diagnosis.id == id_


def test_a_phase_that_is_given_goes_before() -> None:
    assert id_of("550 Access denied", phase=Phase.RCPT) == "smtp.recipient_refused"


def test_an_unknown_phase_is_not_guessed() -> None:
    """Neither a login nor a session is blamed where nothing says so."""
    assert id_of("550 Access denied") == "smtp.content_refused"
    assert id_of("450 try later") == "smtp.passing_refusal"


# -- kinds of routes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "id_"),
    [
        (None, "exo.relay_denied"),
        (RouteKind.SMTP_RELAY, "exo.relay_denied"),
        (RouteKind.DIRECT_SEND, "exo.relay_denied_direct_send"),
    ],
)
def test_the_kind_of_route_decides(kind: RouteKind | None, id_: str) -> None:
    """The same words mean another thing on direct send; without a kind, nothing special is assumed."""
    found = explain("550 5.7.64 TenantAttribution; Relay Access Denied", kind=kind)

    assert found.diagnosis is not None
    assert found.diagnosis.id == id_


def test_without_a_kind_no_kind_is_assumed() -> None:
    assert id_of("535 5.7.3 Authentication unsuccessful") == "exo.authentication_unsuccessful"
    assert (
        id_of("535 5.7.3 Authentication unsuccessful", kind=RouteKind.HIGH_VOLUME_EMAIL)
        == "exo.hve_authentication_unsuccessful"
    )


# -- digits or words alone -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "enhanced", "id_"),
    [
        ("5.7.139", "5.7.139", "exo.authentication_unsuccessful"),
        ("#5.7.57#", "5.7.57", "smtp.not_authenticated"),
        ("Status: 5.7.64", "5.7.64", "exo.relay_denied"),
        ("status code 5.7.68.", "5.7.68", "exo.direct_send_rejected"),
        ("NDR error 5.7.233", "5.7.233", "exo.tenant_recipient_rate"),
        ("dsn=5.7.60", "5.7.60", "exo.send_as_denied"),
        ("“5.1.10”", "5.1.10", "exo.recipient_not_found"),
        ("4.4.62", "4.4.62", "exo.wrong_region"),
    ],
)
def test_a_status_alone_is_enough(text: str, enhanced: str, id_: str) -> None:
    """The code that was not there is not shown."""
    found = explain(text)

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.enhanced) == (None, enhanced)
    assert found.diagnosis is not None
    assert found.diagnosis.id == id_


def test_a_code_alone_is_little() -> None:
    found = explain("535")

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.enhanced) == (535, None)
    assert found.diagnosis is not None
    assert found.diagnosis.id == "smtp.login_refused"


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("SmtpClientAuthentication is disabled for the Tenant", TENANT),
        ("Relay Access Denied", "exo.relay_denied"),
        ("our log says STOREDRV.Submission.Exception:SubmissionQuotaExceededException, what now?", "exo.recipient_quota"),
        ("Client does not have permissions to send as this sender", "exo.send_as_denied"),
        ("Direct Send not allowed for this organization from unauthorized sources", "exo.direct_send_rejected"),
    ],
)  # fmt: skip
def test_words_alone_are_enough_where_nobody_writes_them_by_chance(text: str, id_: str) -> None:
    found = explain(text)

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.enhanced) == (None, None)
    assert found.diagnosis is not None
    assert found.diagnosis.id == id_


# -- nothing is made up ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "hello",
        "order 550 from 2024-05-05",
        "550 from yesterday's order",
        "We sold 550 tickets for 450 euros.",
        "It costs $550 or €5.71.",
        "invoice 421 paid, invoice 535 unpaid",
        "10.5.3.2",
        "server 192.5.7.139 answered in 550 ms",
        "gateway 4.4.7.1 and 5.7.1.20 are up",
        "MySQL 5.7.44 was released",
        "MySQL 5.7.44 does not exist on the mail server",
        "Linux 5.4.1, WordPress 5.2.2, Laravel 5.5.3",
        "HTTP/1.1 503 Service Unavailable",
        "503 Service Unavailable",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "The API returned 500 errors, then 404.",
        "The file is too big for the mail.",
        "SSH: connection timed out",
        "the page does not exist",
        "We support IPv6 and IPv4.",
        "version 4.5.127 of the mail client",
        "call 550-1234 or 450-5678 tomorrow",
        "§ 5.7.139 of the contract of 2024 is not about e-mail",
        "250 people came",
        "2026-10-08T20:36:23.875Z 08DF254F56560914",
    ],
)
def test_ordinary_text_gives_nothing(text: str) -> None:
    """Orders, prices, addresses, versions and the web's own codes are no replies."""
    found = explain(text)

    assert found.recognized is None
    assert found.diagnosis is None
    assert found.trailer is None
    assert not found.retryable
    assert "Nothing in this text" in found.then


def test_an_acceptance_is_no_trouble() -> None:
    """A 250 is recognised, with its trailer, and needs no diagnosis."""
    found = explain("250 2.0.0 OK <x@y> [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]")

    assert found.recognized is not None
    assert (found.recognized.code, found.diagnosis) == (250, None)
    assert found.trailer is not None
    assert found.then == "It is no refusal: the server took this step."


# -- of several, the most telling one --------------------------------------------------------


def test_a_session_is_explained_by_its_refusal() -> None:
    """The acceptances before it, and the QUIT after it, do not hide it."""
    found = explain(
        "S: 220 mx.example.com ESMTP\nC: MAIL FROM:<ana@example.com>\nS: 250 2.1.0 Sender OK\nC: RCPT TO:<ben@example.com>\n"
        "S: 550 5.4.1 Recipient address rejected: Access denied. AS(201806281)\nC: QUIT\nS: 221 2.0.0 Service closing"
    )

    assert found.recognized is not None
    assert (found.recognized.code, found.recognized.phase) == (550, Phase.RCPT)


def test_a_quoted_answer_of_another_server_goes_before_the_catch_all() -> None:
    """5.0.350 says nothing; what stands behind it does."""
    assert (
        id_of("550 5.0.350 Remote server returned an error -> 550 5.7.26 Unauthenticated")
        == "other.unauthenticated_mail"
    )


def test_a_report_is_explained_by_its_diagnostic_code() -> None:
    """Its status stands alone before it; the folded line says more."""
    found = explain(
        "Final-Recipient: rfc822; ben@example.com\nAction: failed\nStatus: 5.7.64\n"
        "Diagnostic-Code: smtp;550 5.7.64 TenantAttribution;\n Relay Access\n  Denied"
        " [AM5EUR03FT012.eop-EUR03.prod.protection.outlook.com]\nRemote-MTA: dns;mx.example.com"
    )

    assert found.recognized is not None
    assert found.recognized.code == 550
    assert found.recognized.text.startswith("TenantAttribution; Relay Access Denied [AM5EUR03FT012")
    assert found.trailer is not None
    assert found.names["recipient"] == "ben@example.com"


def test_the_reason_inside_a_530_is_the_reason() -> None:
    found = explain(f"530 5.7.57 Client not authenticated to send mail. Error: {DISABLED}")

    assert found.recognized is not None
    assert found.recognized.code == 530
    assert found.diagnosis is not None
    assert found.diagnosis.id == TENANT


# -- what is shown ---------------------------------------------------------------------------


def test_the_names_of_the_text_stand_in_the_remedy() -> None:
    """A refusal of Send As names both mailboxes."""
    shown = explain(
        "554 5.2.252 SendAsDenied; noreply@example.com not allowed to send as ceo@example.com; x"
    ).as_json({})

    assert shown["diagnosis"]["remedy"][0] == (  # type: ignore[index]
        "Add-RecipientPermission ceo@example.com -AccessRights SendAs -Trustee noreply@example.com"
    )


def test_names_that_are_given_go_before_those_of_the_text() -> None:
    shown = explain("554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com").as_json(
        {"mailbox": "noreply@example.com"}
    )

    assert shown["diagnosis"]["title"] == "noreply@example.com may not send as b@example.com"  # type: ignore[index]


def test_an_unknown_host_is_the_server() -> None:
    """A title is a sentence, also where nobody knows the host's name."""
    shown = explain("421 Try later, please").as_json({})

    assert str(shown["diagnosis"]["title"]).startswith("The server")  # type: ignore[index]


def test_control_characters_are_not_shown() -> None:
    """A terminal obeys none of them."""
    found = explain("550 5.7.1 \x1b[2Jdenied\x07")

    assert found.recognized is not None
    assert "\x1b" not in found.recognized.text
    assert "\x07" not in found.recognized.text


@pytest.mark.parametrize(
    ("text", "retryable", "words"),
    [
        (DISABLED, True, "lets the lane rest"),
        ("451 4.7.500 Server busy. Please try again later from [203.0.113.5]. (S77714)", True, "throttle"),
        ("452 4.5.3 Too many recipients", True, "smaller transactions"),
        ("550 5.1.10 not found", False, "This recipient fails"),
        ("554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com", False, "its sender"),
        ("550 5.7.512 No From", False, "This message fails"),
    ],
)
def test_it_says_what_postroom_does(text: str, retryable: bool, words: str) -> None:
    found = explain(text)

    assert found.retryable is retryable
    assert words in found.then


# -- any input -------------------------------------------------------------------------------

NASTY = [
    "1", ".", "'", '"', "[", "(", "{", "<", ">", "> ", "&", "&#55;", "\\", "\\n", "=\n", "\n", "\n \n", " ", "_", "\ufdd0", "é",
    "550 ", "550-", "550-5.7.1 ", "550 5.7.1 ", '550 5.7.1 "', "5.7.1 ", "5.1.1.1.", "Error: 535 ", "530 5.7.57 Error: 535 5.7.139 ",
    "550 mail denied\n", "said: 550 x denied ", "a@", "recipient ", "client host ", "RCPT TO:<", "after RCPT TO:<", "status ",
    "[A 2024-01-01T", "\nA-B: x", "A-B: ", "host a.b.c.", "5.7.1 authentication unsuccessful ", "550 5.7.1 [a b",
    "STOREDRV.Submission ", "said:_550_", "x\n550 5.7.57 Error: ", "messages from [", "DNS domain ",
]  # fmt: skip


@pytest.mark.parametrize("piece", NASTY)
def test_any_text_is_answered_in_bounded_work(piece: str) -> None:
    """64 kB of anything need a moment of computing, not minutes: no expression runs away."""
    text = piece * (LONGEST // len(piece) + 1)
    started = time.process_time()

    explain(text[:LONGEST])

    # Most need a tenth of a second. A quadratic expression would need minutes.
    assert time.process_time() - started < 10


def test_longer_texts_are_cut() -> None:
    """What stands behind the limit is not looked at."""
    assert id_of(" " * LONGEST + DISABLED) is None
    assert id_of(DISABLED + "x" * LONGEST) == TENANT


@given(st.text(max_size=300))
def test_no_text_crashes_it(text: str) -> None:
    explain(text).as_json({})


@given(
    st.lists(
        st.sampled_from(
            [*NASTY, "535 5.7.3 Authentication unsuccessful", TRAILER, "550", "5.7.64", "\n", " "]
        ),
        max_size=30,
    )
)
def test_no_mixture_crashes_it(pieces: list[str]) -> None:
    shown = explain("".join(pieces)).as_json({"host": "mx.example.com"})

    assert (shown["diagnosis"] is None) == (shown["class"] is None)
