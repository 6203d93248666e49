"""Settings of the watch over studies: approval, incidents and who is told of them."""

from typing import Self

from pydantic import Field, model_validator

from settings.core import CoreSettings
from settings.values import Listed


class OversightSettings(CoreSettings):
    """Settings of the watch over studies."""

    replay_sample: int = Field(
        default=20,
        ge=0,
        description="participants of each study whose recent decisions are replayed every night; 0 for none",
    )
    two_person: bool | None = Field(
        default=None,
        json_schema_extra={"shown": "`true` in production, else `false`"},
        description="whether dangerous acts on a study need two admins (docs/conduct.md)",
    )
    proposal_hours: float = Field(
        default=72, gt=0, le=24 * 366, description="how long a proposed act waits for the second one"
    )
    watch_seconds: float = Field(
        default=60, gt=0, description="how often the watchdog looks for what did not happen"
    )
    silence_seconds: float = Field(
        default=180,
        gt=0,
        description="without a sign of life for so long, beat or the workers are an incident",
    )
    quiet_hours: float = Field(
        default=24,
        gt=0,
        description="without a decision for so long, a study that should have some is an incident",
    )
    ingest_late_minutes: float = Field(default=60, gt=0, description="how long survey data may be awaited")
    refit_late_hours: float = Field(
        default=26,
        gt=0,
        description="how long a reported outcome may wait for a refit, and refits for a new row",
    )
    queue_late_minutes: float = Field(default=15, gt=0, description="how long a due job may wait")
    fallback_share: float = Field(
        default=0.02, ge=0, le=1, description="share of a day's decisions that may fall back"
    )
    bound_share: float = Field(
        default=0.25, ge=0, le=1, description="share of a day's probabilities that may lie at a bound"
    )
    randomisation_alpha: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="chance that the test of a study's draws ever alarms without cause",
    )
    remind_hours: float = Field(
        default=24, gt=0, description="how often a red incident that nobody acknowledged is told again"
    )
    webhook_url: str = Field(
        default="", description="where incidents are posted; its host must be in `KAIROS_OUTGOING_HOSTS`"
    )
    webhook_secret: str = Field(default="", description="signs those posts, 16 characters or more")
    smtp_to: Listed = Field(default=(), description="comma-separated recipients")

    @property
    def needs_two_persons(self) -> bool:
        """Whether a dangerous act needs another admin than the one who proposes it."""
        return self.mode == "production" if self.two_person is None else self.two_person

    @model_validator(mode="after")
    def _can_notify(self) -> Self:
        if self.webhook_url and len(self.webhook_secret) < 16:
            raise ValueError("KAIROS_WEBHOOK_URL needs a KAIROS_WEBHOOK_SECRET of at least 16 characters")
        if self.webhook_url and self.mode == "production" and not self.webhook_url.startswith("https://"):
            raise ValueError("KAIROS_WEBHOOK_URL must be an https:// URL in production")
        if self.smtp_host and not (self.smtp_from and self.smtp_to):
            raise ValueError("KAIROS_SMTP_HOST needs KAIROS_SMTP_FROM and KAIROS_SMTP_TO")
        if self.silence_seconds < 2 * self.watch_seconds:
            raise ValueError("KAIROS_SILENCE_SECONDS must be at least twice KAIROS_WATCH_SECONDS")
        return self
