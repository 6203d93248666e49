"""Faults of oversight: the refusals of acts on a study."""

from services.core.refusals import Fault


class OversightFault(Fault):
    """A fault of oversight: error_code, HTTP status and message."""

    SAME_PERSON = 930, 409, "Another admin than the one who proposed it must approve."
    PROPOSAL_OVER = 931, 409, "The proposal is approved, rejected or expired already."
    REMOVED_ALREADY = 934, 409, "The participant's data are removed from learning already."
    POLICY_OF_OTHERS = (
        935,
        409,
        "The policy knows other features than those of the protocol: it cannot serve.",
    )
    NEEDS_AMENDMENT = 940, 409, "These keys change only by an amendment, now that the trial has begun."
    PROTOCOL_SAME = 941, 409, "The protocol is this one already."
    PROTOCOL_WAITS = 942, 409, "A later version waits for its time: a new one cannot come before it."
    PROTOCOL_MOVED = 943, 409, "The protocol has got another version meanwhile: propose the change anew."
