"""The acts of oversight that the audit notes."""

from models.core.audit import Act


class OversightAct(Act):
    """The name under which each act stands in the audit."""

    PROTOCOL_VERSION = "protocol_version"
    WITHDRAW = "withdraw"
    REMOVE = "remove_from_learning"
    PAUSE = "pause"
    RESUME = "resume"
    FREEZE = "freeze_learning"
    UNFREEZE = "resume_learning"
    ROLLBACK = "rollback"
    CLOSE = "close"
    PROPOSE = "propose"
    APPROVE = "approve"
    REJECT = "reject"
    CONFIGURATION = "configuration"
    ACKNOWLEDGE = "acknowledge_incident"
