"""The shapes of requests and answers about routes, lanes and reports, for the OpenAPI document."""

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from service.routes.advice import Hosting, Recipients, Senders
from service.routes.kinds import Cloud
from service.submission.models import ErrorOut

_Count = Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]


class NeedsIn(BaseModel):
    """What an application needs. What is not said is taken from the configuration, or assumed; the answer says which."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [{"from": "noreply@contoso.com", "recipients": "mixed", "per_day": 2000}]
        },
    )

    from_: Annotated[str, Field(strict=True, max_length=998)] | None = Field(
        default=None, alias="from", description="The From address; its name goes into settings and commands."
    )
    recipients: Recipients | None = Field(
        default=None, description="Whose mailboxes they are: mixed unless said."
    )
    per_day: _Count | None = Field(default=None, description="Recipients in 24 hours: 1,000 unless said.")
    per_minute: _Count | None = Field(default=None, description="Messages in a minute: 10 unless said.")
    external_per_day: _Count | None = Field(
        default=None, description="Recipients outside the organisation: all of per_day unless said."
    )
    external_share: _Count | None = Field(
        default=None,
        description="External recipients of the tenant's daily budget that this application may use: all of it, "
        "as organization.licences size it, unless said.",
    )
    bulk: StrictBool | None = Field(default=None, description="Newsletters, marketing.")
    senders: Senders | None = Field(
        default=None,
        description="Whose address stands in From: one mailbox, those of many users, or no mailbox.",
    )
    hosting: Hosting | None = Field(
        default=None, description="Where connections come from: organization.egress.hosting unless said."
    )
    ip_shared: StrictBool | None = Field(default=None, description="Others use the public address too.")
    ipv6_only: StrictBool | None = Field(default=None, description="There is no way out over IPv4.")
    port25_out: StrictBool | None = None
    port587_out: StrictBool | None = None
    https_out: StrictBool | None = None
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        default=None, description="A port that the application insists on, such as 465."
    )
    tls12: StrictBool | None = Field(default=None, description="It can do TLS 1.2 or newer.")
    oauth: StrictBool | None = Field(default=None, description="It can log in with OAuth.")
    client_cert: StrictBool | None = Field(
        default=None,
        description="It has a certificate of a public authority with an accepted domain in its CN or SAN.",
    )
    smtp_auth_allowed: StrictBool | None = Field(
        default=None, description="SMTP AUTH is on for the mailbox, or may be switched on."
    )
    security_defaults: StrictBool | None = Field(
        default=None, description="The security defaults of Entra ID are on: true unless said."
    )
    basic_reenabled: StrictBool | None = Field(
        default=None, description="An administrator has allowed passwords again after December 2026."
    )
    licence: StrictBool | None = Field(default=None, description="The mailbox has a licence.")
    reject_direct_send: StrictBool | None = Field(default=None, description="The tenant refuses direct send.")
    sent_items_needed: StrictBool | None = Field(default=None, description="A copy has to be in Sent Items.")
    max_message_mb: Annotated[StrictInt, Field(ge=0, le=100_000)] | None = Field(
        default=None, description="The largest message as it is sent, in MB: 5 unless said."
    )
    own_mail_server: StrictBool | None = Field(
        default=None, description="There is a mail server of one's own, and it can be reached."
    )
    azure_subscription: StrictBool | None = None
    hve_billing: StrictBool | None = Field(
        default=None, description="High Volume Email has a valid billing policy."
    )
    cloud: Cloud | None = Field(default=None, description="entra.cloud unless said.")
    today: Annotated[str, Field(strict=True, pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = Field(
        default=None, description="The day to decide for: today unless said."
    )


class SaidOut(BaseModel):
    code: str
    text: str


class FailedOut(BaseModel):
    code: str
    detail: str


class AlternativeOut(BaseModel):
    option: str
    title: str
    kind: str | None = Field(description="Null: not a route of this version.")
    route_of_this_version: bool
    feasible: bool
    failed: list[FailedOut]


class SettingOut(BaseModel):
    setting: str
    value: str


class SpfOut(BaseModel):
    domain: str
    record: str | None
    notes: list[str]


class RecommendationOut(BaseModel):
    """Which way to take, why, and everything that has to be set up for it."""

    object: Literal["recommendation"]
    recommended: str | None = Field(description="Null: nothing fits.")
    title: str | None
    kind: str | None
    route_of_this_version: bool
    configured: list[str] = Field(description="Routes of this kind that the configuration has already.")
    rule: int | None
    reasons: list[SaidOut]
    notes: list[SaidOut]
    configuration: str | None = Field(description="YAML for Postroom's configuration file.")
    settings: list[SettingOut]
    spf: SpfOut | None
    powershell: list[str]
    admin_centre: list[str]
    unverified: list[str]
    alternatives: list[AlternativeOut]
    microsoft: dict[str, Any] | None = Field(
        description="The recommendation for the way from one's own mail server to Microsoft 365."
    )
    needs: dict[str, Any]
    assumed: list[str] = Field(description="Names of needs that were neither given nor known.")
    decided_for: date


class ColumnOut(BaseModel):
    way: str
    title: str
    kind: str | None
    configured: list[str]
    possible: Literal["yes", "no", "unknown"]
    because: list[str]


class CellOut(BaseModel):
    value: str
    note: str | None
    mark: Literal["verified", "one source", "inferred", "unverified"]


class RowOut(BaseModel):
    feature: str
    title: str
    source: str
    cells: dict[str, CellOut] = Field(description="By way.")


class ComparisonOut(BaseModel):
    """The ways to send, side by side, for this organisation."""

    object: Literal["comparison"]
    columns: list[ColumnOut]
    rows: list[RowOut]


class RestingOut(BaseModel):
    until: datetime
    reason: str
    probe: str
    error: ErrorOut | None


class LimitOut(BaseModel):
    value: int | None
    source: str | None


class LoginOut(BaseModel):
    method: Literal["oauth", "basic"]
    identity: str = Field(description="The application's client id, or the user name.")
    credential: Literal["secret", "certificate", "password"]


class RouteLaneOut(BaseModel):
    name: str
    state: Literal["ready", "resting", "disabled"]
    resting: RestingOut | None


class MailboxOut(BaseModel):
    address: str
    login: LoginOut
    send_as: list[str]
    lane: str


class RouteNoticeOut(BaseModel):
    subject: str
    expires_at: datetime
    days_left: int
    detail: str
    announced_at: datetime


class RouteOut(BaseModel):
    """One way out, as it is in force; without secrets."""

    object: Literal["route"]
    name: str
    kind: str
    title: str
    enabled: bool
    position: int | None = Field(
        description="Its place in route_order, from 1; null: only when asked for by name."
    )
    state: Literal["ready", "resting", "disabled"]
    resting: RestingOut | None
    lanes: list[RouteLaneOut]
    host: str
    mx_of: str | None
    port: int
    connect_to: str | None
    tls: Literal["required", "opportunistic", "none"]
    ehlo_name: str
    authenticate_by: str | None
    client_certificate: bool
    login: LoginOut | None
    mailboxes: list[MailboxOut]
    sender_domains: list[str] | None
    recipient_domains: list[str] | None
    limits: dict[str, LimitOut]
    timeouts: dict[str, float] = Field(description="Seconds by phase.")
    last_check: dict[str, Any] | None
    notices: list[RouteNoticeOut]
    unverified: list[str]


class RouteListOut(BaseModel):
    object: Literal["list"]
    data: list[RouteOut]
    has_more: bool
    next: str | None


class BudgetOut(BaseModel):
    name: str
    limit: int
    window_seconds: float
    used: int
    left: int
    frees_at: datetime | None = Field(description="When the next part of what is used comes free.")


class StoppedOut(BaseModel):
    sender: str
    until: datetime
    reason: str
    error: dict[str, Any]


class BacklogCountOut(BaseModel):
    due: int
    later: int


class ApplicationBacklogOut(BacklogCountOut):
    application: str


class BacklogOut(BaseModel):
    due: int = Field(description="Deliveries that may go now, as far as their own times are concerned.")
    later: int = Field(description="Deliveries that wait for a retry, or behind a stopped sender.")
    counted_all: bool = Field(description="False: there are more than the figures say.")
    by_priority: dict[str, BacklogCountOut]
    by_application: list[ApplicationBacklogOut] | None = Field(
        description="For keys with the scope operate or admin."
    )


class ConnectionsOut(BaseModel):
    limit: int
    in_use: int


class LaneOut(BaseModel):
    """The traffic that one limit of the other side counts together, at this moment."""

    object: Literal["lane"]
    name: str
    route: str
    kind: str
    state: Literal["ready", "resting", "disabled"]
    resting: RestingOut | None
    external_resting: RestingOut | None
    troubles: int
    stopped_senders: int
    stopped: list[StoppedOut] | None = Field(description="For keys with the scope operate or admin.")
    limits: dict[str, int | None]
    budgets: list[BudgetOut]
    connections: ConnectionsOut
    running: int
    backlog: BacklogOut
    oldest_due_at: datetime | None
    drains_at: datetime | None
    drains_because: list[str]
    drains_exact: bool | None


class ExternalBudgetOut(BaseModel):
    """External recipients that the whole tenant may have (TERRL)."""

    limit: int | None
    used: int | None
    left: int | None
    frees_at: datetime | None
    resting: RestingOut | None
    lanes: list[str] = Field(description="The lanes that count towards it.")
    source: str


class LaneListOut(BaseModel):
    object: Literal["list"]
    data: list[LaneOut]
    has_more: bool
    next: str | None
    external_budget: ExternalBudgetOut


class MilestoneOut(BaseModel):
    code: str
    on: date
    text: str
    mark: str
    days_left: int


class ShareOut(BaseModel):
    application: str
    messages: int
    recipients: int


class PasswordLoginOut(BaseModel):
    lane: str
    route: str
    kind: str | None = Field(description="Null: the configuration has no such route any more.")
    identity: str
    configured: bool = Field(description="The configuration has a password for it now.")
    enabled: bool
    affected: bool = Field(description="The retirement of passwords concerns it.")
    remains: bool = Field(description="Somebody has to act.")
    verdict: str
    first_seen: datetime | None
    last_used: datetime | None
    sessions: int
    messages: int
    recipients: int
    applications: list[ShareOut] = Field(
        description="All of them for keys with operate or admin, else one's own."
    )
    what_to_do: list[str]


class BasicAuthReportOut(BaseModel):
    """Who still logs in with a password, how much goes that way, and what to do by when."""

    object: Literal["basic_auth_report"]
    created_at: datetime
    span_days: int
    remaining: int = Field(description="Logins for which somebody has to act.")
    days_left: int = Field(description="Until passwords are off by default.")
    milestones: list[MilestoneOut]
    source: str
    logins: list[PasswordLoginOut]
    see_also: str
