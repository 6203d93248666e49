"""The acts of core that the audit notes."""

from models.core.audit import Act


class CoreAct(Act):
    """The name under which each act stands in the audit."""

    CREATE_ACCOUNT = "create_account"
    CHANGE_ACCOUNT = "change_account"
    RESET_PASSWORD = "reset_password"  # noqa: S105 (the name of an act)
    ROTATE_KEYS = "rotate_keys"
    GRANT = "grant"
