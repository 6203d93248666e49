"""Settings of trials."""

from pydantic import Field

from settings.core import CoreSettings


class TrialSettings(CoreSettings):
    """Settings of trials."""

    fit_part: int = Field(
        default=16384,
        gt=0,
        multiple_of=256,
        description=(
            "participants in a part of a fit, a multiple of 256; "
            "a larger study is fitted in parts that all workers share"
        ),
    )
