"""Settings of the machinery: database, broker, keys, HTTP, outgoing calls, mail."""

import importlib.util
import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from settings import values
from settings.values import AreaSettings, Listed

LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "unix"}


class CoreSettings(AreaSettings):
    """Settings of the machinery."""

    mode: Literal["embedded", "production"] = Field(
        default="production", description="`embedded` allows what only a machine of one's own may do"
    )
    database_url: Annotated[str, AfterValidator(values.psycopg2_url)] = Field(
        validation_alias="DATABASE_URL",
        description="PostgreSQL 15 or later; `postgres://` and `postgresql://` mean psycopg2",
    )
    broker_url: Annotated[str, AfterValidator(values.redis_url)] = Field(
        validation_alias="BROKER_URL",
        description="Redis or Valkey, `redis://`, `rediss://` or `redis+socket://`",
    )
    signing_keys: Annotated[Listed, AfterValidator(values.signing_keys)] = Field(
        default=(),
        description="comma-separated keys of 32 characters or more; the first signs tokens, all verify",
    )
    secrets_keys: Annotated[Listed, AfterValidator(values.secrets_keys)] = Field(
        default=(), description="comma-separated Fernet keys; the first encrypts stored secrets, all decrypt"
    )
    registration: Literal["first", "token", "closed"] = Field(
        default="closed",
        description=(
            "who may register as a client: the `first` caller, whoever has the study's `token`, or nobody"
        ),
    )
    registration_secret: str = Field(
        default="",
        description="what the studies' registration tokens are made of under `token`, 32 characters or more",
    )
    token_hours: float = Field(default=24, gt=0, le=24 * 366, description="how long a bearer token lives")
    tls_terminated: bool = Field(
        default=False, description="declares that TLS ends before the service; production needs `true`"
    )
    proxy_hops: int = Field(
        default=0, ge=0, description="how many proxies before the service may be believed about addresses"
    )
    outgoing_hosts: Listed = Field(
        default=(), description="hosts (or host:port) that workers may ask for survey data, and the webhook's"
    )
    outgoing_private: bool = Field(
        default=False,
        description="whether such a host may have a private address",
        json_schema_extra={"shown": "`false`, `true` embedded"},
    )
    api_bind: str = Field(default="127.0.0.1:8000", description="where the API listens")
    api_processes: int = Field(default=2, ge=1, description="API processes")
    api_threads: int = Field(default=8, ge=1, description="threads, and database connections, of each")
    sweep_seconds: float = Field(
        default=30, gt=0, description="how often lost messages and dead workers' jobs are looked for"
    )
    retry_seconds: float = Field(
        default=5, gt=0, description="pause before the first retry of an ingest; it doubles"
    )
    slow_retry_seconds: float = Field(
        default=6 * 3600,
        gt=0,
        description="pause before an ingest that a retry soon does not help is tried again",
    )
    claim_seconds: float = Field(
        default=660,
        gt=0,
        description="after this a job whose worker hangs is put back; that of a dead one at the next sweep",
    )
    visibility_seconds: float = Field(
        default=900,
        gt=0,
        description=(
            "after this the broker gives a silent worker's message to another; "
            "above 600, or a long task runs twice"
        ),
    )
    backup_keep: int = Field(
        default=14, ge=1, description="how many backups are kept in the store; the oldest go"
    )
    smtp_host: str = Field(default="", description="mail server that incidents are sent through")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="its port")
    smtp_user: str = Field(default="", description="login there")
    smtp_password: str = Field(default="", description="its password")
    smtp_from: str = Field(default="", description="sender of the mails")
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`starttls`, `tls` from the first byte, or `none`"
    )
    metrics_token: str = Field(default="", description="bearer token of /metrics, 16 characters or more")
    store: Annotated[str, AfterValidator(values.store_url)] = Field(
        default="file:///var/lib/kairos/objects",
        json_schema_extra={"shown": "`file:///var/lib/kairos/objects`, embedded in the state folder"},
        description="where objects lie (exports, backups): `file:///folder`, which API and workers share, or"
        " `s3://bucket/prefix`",
    )
    store_endpoint: Annotated[str, AfterValidator(values.web_address)] = Field(
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
    public_url: Annotated[str, AfterValidator(values.web_address)] = Field(
        default="",
        description="the address under which callers reach this service; the one of KAIROS_API_BIND if empty",
    )
    storage_url: Annotated[str, AfterValidator(values.web_address)] = Field(
        default="",
        description="the address of signed links to objects in a folder; KAIROS_PUBLIC_URL if empty",
    )

    @property
    def storage_address(self) -> str:
        """The address that signed links of the local store begin with, without a slash at its end."""
        return self.storage_url or self.public_url or f"http://{self.api_bind}"

    @model_validator(mode="after")
    def _safe_core(self) -> Self:
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
        if self.metrics_token and len(self.metrics_token) < 16:
            raise ValueError("KAIROS_METRICS_TOKEN needs at least 16 characters")
        self._can_store()
        if self.mode == "production":
            self._safe_in_production()
        return self

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
        if any(values.is_typed(key) for key in self.signing_keys):
            raise ValueError(
                "KAIROS_SIGNING_KEYS has a key that is not random: `python -m api.core.keys new` makes one"
            )
        if self.registration == "token" and values.is_typed(self.registration_secret):
            raise ValueError(
                "KAIROS_REGISTRATION_SECRET is not random: `python -m api.core.keys new` makes one"
            )
        if self.smtp_password and self.smtp_tls == "none":
            raise ValueError("KAIROS_SMTP_PASSWORD needs KAIROS_SMTP_TLS=starttls or tls in production")
        if any(url.startswith("http:") for url in (self.public_url, self.storage_url)):
            raise ValueError("KAIROS_PUBLIC_URL and KAIROS_STORAGE_URL must be https:// in production")
