"""Every setting of the service, read once from the environment. The table in README.md lists them."""

import functools
import importlib.util
import os
import re
from typing import Annotated, Literal, Self

from cryptography.fernet import Fernet
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MODES = Literal["embedded", "production"]
PREFIX = "KAIROS_"
LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "unix"}
FEWEST_SYMBOLS = 10  # different ones in a key: below it somebody typed it
TYPED = ("change", "default", "example", "secret")


class WrongSettings(SystemExit):
    """The environment allows no start. Whatever the entry point, the process ends with one sentence."""


def _psycopg2(url: str) -> str:
    """Hosting platforms hand out `postgres://`; SQLAlchemy would read `postgresql://` as another driver."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise ValueError("must be a postgresql:// URL")
    return f"postgresql+psycopg2://{rest}"


def _redis(url: str) -> str:
    if url.partition("://")[0] not in {"redis", "rediss", "redis+socket"}:
        raise ValueError("must be a redis://, rediss:// or redis+socket:// URL")
    return url


def _listed(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _signing_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys or min(map(len, keys)) < 32:
        raise ValueError("needs keys of at least 32 characters: `python -m api.core.keys new` makes one")
    return keys


def _secrets_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        keys = ()
    if not keys:
        raise ValueError(
            "needs Fernet keys, which encrypt stored secrets: `python -m api.core.keys new` makes one"
        )
    return keys


def _store(url: str) -> str:
    scheme, _, place = url.partition("://")
    is_folder = scheme == "file" and place.startswith("/")
    is_bucket = scheme == "s3" and re.fullmatch(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w-][\w.-]*)*/?", place, re.ASCII
    )
    if not (is_folder or is_bucket):
        raise ValueError("must be file:///folder or s3://bucket/prefix")
    return url


def _web_address(url: str) -> str:
    """An address without a slash at its end, to which paths are added."""
    if url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """Names are those of the environment, with the prefix KAIROS_ where no other is given."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True
    )

    mode: MODES = "production"
    database_url: Annotated[str, AfterValidator(_psycopg2)] = Field(validation_alias="DATABASE_URL")
    broker_url: Annotated[str, AfterValidator(_redis)] = Field(validation_alias="BROKER_URL")
    signing_keys: Annotated[Listed, AfterValidator(_signing_keys)] = ()
    secrets_keys: Annotated[Listed, AfterValidator(_secrets_keys)] = ()
    registration: Literal["first", "token", "closed"] = "closed"
    registration_secret: str = ""
    token_hours: float = Field(default=24, gt=0, le=24 * 366)
    tls_terminated: bool = False
    proxy_hops: int = Field(default=0, ge=0)
    outgoing_hosts: Listed = ()
    outgoing_private: bool = False
    api_bind: str = "127.0.0.1:8000"
    api_processes: int = Field(default=2, ge=1)
    api_threads: int = Field(default=8, ge=1)
    sweep_seconds: float = Field(default=30, gt=0)
    retry_seconds: float = Field(default=5, gt=0)
    slow_retry_seconds: float = Field(default=6 * 3600, gt=0)
    fit_part: int = Field(default=16384, gt=0, multiple_of=256)
    claim_seconds: float = Field(default=660, gt=0)
    export_days: float = Field(default=7, gt=0)
    backup_keep: int = Field(default=14, ge=1)
    replay_sample: int = Field(default=20, ge=0)
    two_person: bool | None = None
    proposal_hours: float = Field(default=72, gt=0, le=24 * 366)

    watch_seconds: float = Field(default=60, gt=0)
    silence_seconds: float = Field(default=180, gt=0)
    quiet_hours: float = Field(default=24, gt=0)
    ingest_late_minutes: float = Field(default=60, gt=0)
    refit_late_hours: float = Field(default=26, gt=0)
    queue_late_minutes: float = Field(default=15, gt=0)
    fallback_share: float = Field(default=0.02, ge=0, le=1)
    bound_share: float = Field(default=0.25, ge=0, le=1)
    randomisation_alpha: float = Field(default=0.001, gt=0, lt=1)
    remind_hours: float = Field(default=24, gt=0)
    webhook_url: str = ""
    webhook_secret: str = ""
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_from: str = ""
    smtp_to: Listed = ()
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    metrics_token: str = ""

    store: Annotated[str, AfterValidator(_store)] = Field(
        default="file:///var/lib/kairos/objects",
        description="where objects lie (exports, backups): `file:///folder`, which API and workers share, or"
        " `s3://bucket/prefix`",
    )
    store_endpoint: Annotated[str, AfterValidator(_web_address)] = Field(
        default="", description="the address of an S3 service; Amazon's own in AWS_REGION where it is not set"
    )
    aws_access_key_id: str = Field(
        default="", validation_alias="AWS_ACCESS_KEY_ID", description="the access key of the S3 service"
    )
    aws_secret_access_key: str = Field(
        default="", validation_alias="AWS_SECRET_ACCESS_KEY", description="the secret that belongs to it"
    )
    aws_region: str = Field(
        default="", validation_alias="AWS_REGION", description="the S3 service's region; `us-east-1` if empty"
    )
    public_url: Annotated[str, AfterValidator(_web_address)] = Field(
        default="",
        description="the address under which callers reach this service; the one of KAIROS_API_BIND if empty",
    )
    storage_url: Annotated[str, AfterValidator(_web_address)] = Field(
        default="",
        description="the address of signed links to objects in a folder; KAIROS_PUBLIC_URL if empty",
    )

    @property
    def storage_address(self) -> str:
        """The address that signed links of the local store begin with, without a slash at its end."""
        return self.storage_url or self.public_url or f"http://{self.api_bind}"

    @property
    def needs_two_persons(self) -> bool:
        """Whether a dangerous act needs another admin than the one who proposes it."""
        return self.mode == "production" if self.two_person is None else self.two_person

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.mode == "production":
            self._safe_in_production()
        self._safe_registration()
        self._can_notify()
        self._can_store()
        if self.metrics_token and len(self.metrics_token) < 16:
            raise ValueError("KAIROS_METRICS_TOKEN needs at least 16 characters")
        if self.silence_seconds < 2 * self.watch_seconds:
            raise ValueError("KAIROS_SILENCE_SECONDS must be at least twice KAIROS_WATCH_SECONDS")
        return self

    def _safe_registration(self) -> None:
        if self.registration == "first" and self.api_bind.rpartition(":")[0] not in LOOPBACK:
            raise ValueError(
                "KAIROS_REGISTRATION=first lets anybody in: KAIROS_API_BIND must be a loopback address"
            )
        if os.environ.get("KAIROS_REGISTRATION_TOKEN"):
            raise ValueError(
                "KAIROS_REGISTRATION_TOKEN opens no study any more: set KAIROS_REGISTRATION_SECRET in its "
                "place, of which each study has a token of its own"
            )
        if self.registration == "token" and len(self.registration_secret) < 32:
            raise ValueError(
                "KAIROS_REGISTRATION_SECRET needs 32 characters: `python -m api.core.keys new` makes one"
            )

    def _can_notify(self) -> None:
        if self.webhook_url and len(self.webhook_secret) < 16:
            raise ValueError("KAIROS_WEBHOOK_URL needs a KAIROS_WEBHOOK_SECRET of at least 16 characters")
        if self.smtp_host and not (self.smtp_from and self.smtp_to):
            raise ValueError("KAIROS_SMTP_HOST needs KAIROS_SMTP_FROM and KAIROS_SMTP_TO")

    def _can_store(self) -> None:
        for name in ("KAIROS_EXPORT_FOLDER", "KAIROS_BACKUP_FOLDER"):
            if os.environ.get(name):
                raise ValueError(
                    f"{name} is no setting any more: exports and backups lie in the object store, which "
                    "KAIROS_STORE names"
                )
        if self.store.startswith("s3://") and not (self.aws_access_key_id and self.aws_secret_access_key):
            raise ValueError("KAIROS_STORE=s3://... needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if self.store.startswith("s3://") and importlib.util.find_spec("obstore") is None:
            raise ValueError(
                "KAIROS_STORE=s3://... needs the package obstore, the extra `s3`: requirements.lock has it"
            )

    def _safe_in_production(self) -> None:
        if self.registration == "first":
            raise ValueError("KAIROS_REGISTRATION=first lets anybody in: production takes token or closed")
        if not self.tls_terminated:
            raise ValueError("KAIROS_TLS_TERMINATED=true must declare that TLS ends before this service")
        if any(_typed(key) for key in self.signing_keys):
            raise ValueError(
                "KAIROS_SIGNING_KEYS has a key that is not random: `python -m api.core.keys new` makes one"
            )
        if self.registration == "token" and _typed(self.registration_secret):
            raise ValueError(
                "KAIROS_REGISTRATION_SECRET is not random: `python -m api.core.keys new` makes one"
            )
        if self.webhook_url and not self.webhook_url.startswith("https://"):
            raise ValueError("KAIROS_WEBHOOK_URL must be an https:// URL in production")
        if any(url.startswith("http:") for url in (self.public_url, self.storage_url)):
            raise ValueError("KAIROS_PUBLIC_URL and KAIROS_STORAGE_URL must be https:// in production")
        if self.smtp_password and self.smtp_tls == "none":
            raise ValueError("KAIROS_SMTP_PASSWORD needs KAIROS_SMTP_TLS=starttls or tls in production")


def _typed(key: str) -> bool:
    return len(set(key)) < FEWEST_SYMBOLS or any(word in key.lower() for word in TYPED)


@functools.cache
def settings() -> Settings:
    """The settings of this process. Raises WrongSettings naming what is missing or unsafe, never a value."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
    told = dict.fromkeys(_sentence(one["loc"], one["type"], one["msg"]) for one in wrong)
    raise WrongSettings(f"kairos: {'; '.join(told)}.")


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    field = str(location[0])
    name = f"{PREFIX}{field.upper()}" if field in Settings.model_fields else field
    told = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name} {'is needed' if kind == 'missing' else told}"
