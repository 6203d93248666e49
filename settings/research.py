"""Settings of exports and analyses."""

from pydantic import Field

from settings.values import AreaSettings


class ResearchSettings(AreaSettings):
    """Settings of exports and analyses."""

    export_days: float = Field(default=7, gt=0, description="how long the file of an export is kept")
