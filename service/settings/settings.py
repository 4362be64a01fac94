"""All settings together: loaded, checked, explained.

`Settings.load` either gives settings in which every rule holds or raises `BadSettings` with one
line for each mistake. The lines name the setting as it is written in the file, the rule, and
what to do; never a value, because a value may be a password in the wrong place.

Precedence, the strongest first: environment, file, default. The merging is ours (`sources.py`)
because pydantic-settings' own sources overlook unknown names in the environment, cannot reach
into a list, and do not tell where a value came from.
"""

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from service.ledger import database_url
from service.routes.choice import RouteBook
from service.routes.mx import Resolver
from service.routes.route import Route
from service.routes.targets import TargetRules
from service.routes.tokens import Entra
from service.settings import build, redis_url, rules
from service.settings.cautions import cautions
from service.settings.faults import explained
from service.settings.route_shapes import (
    RouteShape,
)
from service.settings.shapes import (
    Api,
    ChecksShape,
    ConsoleShape,
    Dispatch,
    Dns,
    EntraShape,
    MetricsShape,
    Organization,
    RetentionShape,
    SandboxShape,
    WebhooksShape,
)
from service.settings.sources import SECRETS, BadSettings, Location, Node, dotted, gather, leaf_at, plain
from service.settings.values import GROUP, LIST, Names, written

STRUCK_OUT = "********"

# The whole text up to the last @: a password that was not encoded may have any character in it.
_URL_PASSWORD = re.compile(r"(://[^/:@]*:).*(?=@)|((?<=[?&])\w*password=)[^&]*")
_SCHEMES = {
    "database_url": ("postgresql://", "postgres://", "postgresql+asyncpg://"),
    "redis_url": ("redis://", "rediss://", "unix://"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One effective setting, as `config show` prints it."""

    name: str  # routes[0].limits.connections
    value: object  # a text, number, truth value, None, or a list of these; secrets struck out
    source: str  # "default", "file", "environment" or "secret file"


class Settings(BaseSettings):
    """The whole configuration of one process."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, coerce_numbers_to_str=True
    )

    database_url: SecretStr = Field(description="PostgreSQL: postgresql://user:password@host/database.")
    redis_url: SecretStr = Field(description="Redis or Valkey: redis://host:6379/0.")
    organization: Annotated[Organization, GROUP] = Field(default=Organization())
    # The name is free for the method: other rooms want the value, not how it was written.
    directory: Annotated[EntraShape, GROUP] = Field(default=EntraShape(), alias="entra")
    dns: Annotated[Dns, GROUP] = Field(default=Dns())
    routes: Annotated[tuple[RouteShape, ...], LIST] = Field(default=(), description="The ways out.")
    route_order: Names | None = Field(
        default=None,
        description="What route auto tries, in this order; all routes as they are listed unless set.",
    )
    pass_over_resting: bool = Field(
        default=True,
        description="Whether route auto passes over a route that rests, where another one fits.",
    )
    dispatch: Annotated[Dispatch, GROUP] = Field(default=Dispatch())
    api: Annotated[Api, GROUP] = Field(default=Api())
    checks: Annotated[ChecksShape, GROUP] = Field(default=ChecksShape())
    console: Annotated[ConsoleShape, GROUP] = Field(default=ConsoleShape())
    webhooks: Annotated[WebhooksShape, GROUP] = Field(default=WebhooksShape())
    retention: Annotated[RetentionShape, GROUP] = Field(default=RetentionShape())
    metrics: Annotated[MetricsShape, GROUP] = Field(default=MetricsShape())
    encryption_key: SecretStr | None = Field(
        default=None,
        description="Seals contents and the secrets of webhooks in the database: 32 random bytes in base64 (openssl rand -base64 32).",
    )
    previous_encryption_key: SecretStr | None = Field(
        default=None,
        description="The key before: opens what it has sealed until the workers have sealed that anew.",
    )
    sandbox: Annotated[SandboxShape, GROUP] = Field(default=SandboxShape())
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged: this and what is more serious."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="For machines, or for people.")

    _given: Node = PrivateAttr(default_factory=dict)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load` has merged, and nothing behind its back."""
        return (init_settings,)

    @field_validator("database_url", "redis_url")
    @classmethod
    def _scheme(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        schemes = _SCHEMES[str(info.field_name)]
        if not url.get_secret_value().startswith(schemes):
            raise ValueError(f"is not a URL of this kind. Begin it with {' or '.join(schemes)}.")
        check = database_url.check if info.field_name == "database_url" else redis_url.check
        check(url.get_secret_value())
        return url

    @field_validator("encryption_key", "previous_encryption_key")
    @classmethod
    def _key_of_the_seal(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(_octets(key)) != 32:
            raise ValueError("is not 32 bytes in base64. Make one: openssl rand -base64 32.")
        return key

    @classmethod
    def load(cls, config: Path | None, env: Mapping[str, str] = os.environ) -> Self:
        """Read and check everything. `config` is the YAML file; without it POSTROOM_CONFIG names one, or there is none.

        Raises BadSettings with a line for each mistake.
        """
        if config is None and env.get("POSTROOM_CONFIG"):
            config = Path(env["POSTROOM_CONFIG"])
        given, lines = gather(config, env)
        values = plain(given)
        assert isinstance(values, dict)
        settings: Self | None = None
        try:
            settings = cls(**values)
        except ValidationError as invalid:
            read = "" if config is not None else " (no file was named: --config, or POSTROOM_CONFIG)"
            lines += explained(invalid, given, names=_names(cls.schema()), read=read)
        parts = rules.readable(values)
        lines += rules.mistakes(parts, now=datetime.now(UTC))
        if settings is None or lines:
            raise BadSettings(lines)
        settings._given = given
        return settings

    def warnings(self) -> tuple[str, ...]:
        """List what is allowed and will surprise someone, one line each."""
        return tuple(cautions(self._parts(), now=datetime.now(UTC)))

    def route_book(self) -> RouteBook:
        """Build the routes, the order in which `auto` tries them, and the way of test keys."""
        routes = [self._route(shape) for shape in self.routes]
        return RouteBook(
            routes,
            order=self.route_order if self.route_order is not None else [route.name for route in routes],
            sandbox=build.sandbox_route(self.sandbox, organization=self.organization),
            accepted_domains=self.organization.accepted_domains,
            external_budget=build.external_budget(self.organization),
            pass_over_resting=self.pass_over_resting,
        )

    def resolver(self) -> Resolver:
        """Build what `MxFinder` needs to know."""
        return build.resolver(self.dns)

    def entra(self) -> Entra:
        """Build what `Tokens` needs to know."""
        return build.entra(self.directory)

    def target_rules(self) -> TargetRules:
        """Build what `Targets` needs to know."""
        given = self.webhooks
        return TargetRules(
            allow_http=given.allow_http,
            allow_private=given.allow_private,
            allowed_networks=given.allowed_networks,
        )

    def sealing_key(self) -> bytes | None:
        """Say with which 32 octets secrets of others are sealed; None: they are not."""
        return None if self.encryption_key is None else _octets(self.encryption_key)

    def previous_sealing_key(self) -> bytes | None:
        """Say which 32 octets it was before; None: none."""
        return None if self.previous_encryption_key is None else _octets(self.previous_encryption_key)

    def effective(self) -> list[Setting]:
        """List every setting as it takes effect, the defaults of each kind of route included."""
        return [
            Setting(name=dotted(location), value=value, source=self._source(location))
            for location, value in self._flat()
        ]

    @classmethod
    def schema(cls) -> dict[str, object]:  # type: ignore[override]  # pydantic's method of this name is deprecated
        """Describe the file as a JSON Schema, with each secret's `<name>_file` beside it."""
        schema = cls.model_json_schema()
        for group in (schema, *schema.get("$defs", {}).values()):
            _with_secret_files(group)
        return schema

    def _parts(self) -> rules.Parts:
        return rules.Parts(
            organization=self.organization,
            entra=self.directory,
            routes=dict(enumerate(self.routes)),
            route_order=self.route_order,
            dispatch=self.dispatch,
            sandbox=self.sandbox,
            webhooks=self.webhooks,
            console=self.console,
            unread=frozenset(),
        )

    def _route(self, shape: RouteShape) -> Route:
        return build.route(shape, organization=self.organization, cloud=self.directory.cloud)

    def _source(self, location: Location) -> str:
        leaf = leaf_at(self._given, location) or leaf_at(self._given, (*location, 0))
        return "default" if leaf is None else leaf.source

    def _flat(self) -> Iterator[tuple[Location, object]]:
        resolved = {index: _resolved(self._route(shape)) for index, shape in enumerate(self.routes)}
        for location, value in _leaves(self, ()):
            match location:
                case ("routes", int(index), *rest) if tuple(rest) in resolved[index]:
                    yield location, _shown(resolved[index][tuple(rest)])
                case _:
                    yield location, _shown(value, name=str(location[-1]))


def _octets(key: SecretStr) -> bytes:
    """Read base64; empty where it is none."""
    try:
        return base64.b64decode(key.get_secret_value().strip(), validate=True)
    except ValueError:
        return b""


def _resolved(route: Route) -> dict[Location, object]:
    """Say what a route's settings are where the file left them to defaults."""
    return {
        ("host",): route.peer.host,
        ("port",): route.peer.port,
        ("tls",): route.peer.tls,
        ("ehlo_name",): route.peer.ehlo_name,
        **{("limits", name): limit for name, limit in asdict(route.limits).items()},
        **{
            ("timeouts", name): timedelta(seconds=limit)
            for name, limit in asdict(route.peer.timeouts).items()
        },
    }


def _leaves(value: object, location: Location) -> Iterator[tuple[Location, object]]:
    if isinstance(value, BaseModel):
        for name, described in type(value).model_fields.items():
            yield from _leaves(getattr(value, name), (*location, described.alias or name))
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, child in enumerate(value):
            yield from _leaves(child, (*location, index))
    else:
        yield location, value


def _shown(value: object, *, name: str = "") -> object:
    """Write a value for people and JSON, without what is secret in it."""
    match value:
        case SecretStr() if name in _SCHEMES:
            return _URL_PASSWORD.sub(rf"\1\2{STRUCK_OUT}", value.get_secret_value())
        case SecretStr():
            return STRUCK_OUT
        case timedelta():
            return written(value)
        case Enum():
            return value.value
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return [_shown(member) for member in value]
        case None | bool() | int() | float():
            return value
        case _:
            return str(value)


def _with_secret_files(group: dict[str, Any]) -> None:
    """Let a group of the schema take each of its secrets either way."""
    properties, required = group.get("properties", {}), group.get("required", [])
    for name in sorted(SECRETS & set(properties)):
        properties[f"{name}_file"] = {
            "type": "string",
            "description": f"A file that holds {name} and nothing else.",
        }
        if name in required:
            required.remove(name)
            group.setdefault("allOf", []).append(
                {"oneOf": [{"required": [name]}, {"required": [f"{name}_file"]}]}
            )


def _names(schema: dict[str, Any]) -> set[str]:
    return {name for group in (schema, *schema["$defs"].values()) for name in group.get("properties", {})}
