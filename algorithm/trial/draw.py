"""The draw of an action: a keyed hash, so that anybody who knows the key can check it with arithmetic alone.

The seed is the first 53 bits of an HMAC-SHA256 (RFC 2104, FIPS 180-4): it survives restarts, does not
depend on which process answers, and cannot be predicted without the study's key. No random generator is
involved."""

import hmac
from functools import lru_cache


def seed(key: bytes, participant_id: int, decision_index: int) -> int:
    """The seed of one decision, an integer in [0, 2^53): the big-endian first 8 bytes of HMAC-SHA256
    under the study key of the UTF-8 text "participant_id|decision_index", shifted right by 11."""
    keyed = _keyed(key).copy()
    keyed.update(f"{participant_id}|{decision_index}".encode())
    return int.from_bytes(keyed.digest()[:8], "big") >> 11


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> hmac.HMAC:
    """The hash with its key taken in, to be copied: setting it up is most of the work."""
    return hmac.new(key, digestmod="sha256")


def action(seed: int, act_prob: float) -> int:
    """1 if seed / 2^53 < act_prob, else 0."""
    return 1 if seed / 2**53 < act_prob else 0
