"""Faults of research: the refusals of exports."""

from services.core.refusals import Fault


class ResearchFault(Fault):
    """A fault of research: error_code, HTTP status and message."""

    EXPORT_UNFINISHED = 914, 409, "The export is not written yet, or failed."
    EXPORT_GONE = 915, 410, "The file of this export is no longer kept: ask for a new one."
