"""The acts of research that the audit notes."""

from models.core.audit import Act


class ResearchAct(Act):
    """The name under which each act stands in the audit."""

    EXPORT = "export"
    EXPORT_DOWNLOAD = "export download"
    EXPORT_COMMAND = "export at the command line"
    EXPORT_WRITTEN = "export written"
