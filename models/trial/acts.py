"""The acts of trial that the audit notes."""

from models.core.audit import Act


class TrialAct(Act):
    """The name under which each act stands in the audit."""

    CREATE_STUDY = "create_study"
    PROTOCOL_IN_FORCE = "protocol_in_force"
    RETRY_WINDOW = "retry_window"
    CORRECT = "correct"
    ACTIVATE = "activate"
    REBUILD = "rebuild_statistics"
