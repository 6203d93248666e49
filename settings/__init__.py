"""Every setting of the service, read once from the environment; a file per area, a table in README.md."""

import functools

from pydantic import ValidationError

from settings.core import LOOPBACK
from settings.oversight import OversightSettings
from settings.research import ResearchSettings
from settings.trial import TrialSettings
from settings.values import PREFIX

__all__ = ["LOOPBACK", "Settings", "WrongSettings", "settings"]


class WrongSettings(SystemExit):
    """The environment allows no start. Whatever the entry point, the process ends with one sentence."""


class Settings(ResearchSettings, OversightSettings, TrialSettings):
    """The settings of all areas."""


@functools.cache
def settings() -> Settings:
    """The settings of this process. Raises WrongSettings naming what is missing or unsafe, never a value."""
    try:
        return Settings()
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
    sentences = dict.fromkeys(_sentence(error["loc"], error["type"], error["msg"]) for error in errors)
    raise WrongSettings(f"kairos: {'; '.join(sentences)}.")


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    """An error of a setting as a sentence that names it."""
    if not location:
        return message.removeprefix("Value error, ")
    field = str(location[0])
    name = f"{PREFIX}{field.upper()}" if field in Settings.model_fields else field
    problem = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name} {'is needed' if kind == 'missing' else problem}"
