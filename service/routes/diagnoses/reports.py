"""What stands in non-delivery reports only: after the other side had taken the message."""

from service.routes.diagnoses.entry import NDR, Class, Diagnosis, Scope

REPORTS: tuple[Diagnosis, ...] = (
    Diagnosis(
        id="report.expired_on_the_way",
        title="Exchange Online gave up after a day",
        explanation="The message could not be handed on to the recipient's server within 24 hours.",
        who="application",
        remedy=(
            "Ask the recipient's administrator whether their server takes mail; then retry the message.",
        ),
        kind=Class.PM,
        source=NDR,
        enhanced=r"4\.4\.7|5\.4\.300",
        reported=True,
    ),
    Diagnosis(
        id="report.remote_unreachable",
        title="The recipient's server could not be reached",
        explanation="The connection was refused, or TLS or MTA-STS failed, and Exchange Online has retried already.",
        who="application",
        remedy=("Ask the recipient's administrator; a new attempt is yours to decide.",),
        kind=Class.PR,
        source=NDR,
        enhanced=r"4\.4\.(31[0-9]|8)",
        reported=True,
    ),
    Diagnosis(
        id="report.dane_failed",
        title="The recipient's domain has broken DANE or DNSSEC",
        explanation="Its server offers no STARTTLS, or its certificate does not fit what the domain publishes.",
        who="application",
        remedy=(
            "Tell the administrator of the recipient's domain: TLSA record, certificate and DNSSEC disagree.",
        ),
        kind=Class.PR,
        source=NDR,
        enhanced=r"[45]\.7\.32[1-5]",
        reported=True,
    ),
    Diagnosis(
        id="report.refused_elsewhere",
        title="The recipient's server refused the message",
        explanation="A refusal from outside Microsoft 365, a relay that is not permitted there, or automatic forwarding to "
        "the outside that one's own organisation forbids.",
        who="exchange_admin",
        remedy=(
            "Read the text of the report: it quotes the other server.",
            "For forwarding: Get-HostedOutboundSpamFilterPolicy | fl AutoForwardingMode",
        ),
        kind=Class.PM,
        source=NDR,
        enhanced=r"5\.0\.350|5\.7\.(367|520)",
        touches=Scope.MESSAGE,
    ),
)
