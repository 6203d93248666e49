"""The draw of an action from a keyed hash, so that anybody who knows the key can check it with arithmetic
alone.

The seed is the first 53 bits of an HMAC-SHA256 (RFC 2104, FIPS 180-4). It survives restarts, does not depend
on which process answers, and cannot be predicted without the study's key. No random generator is involved."""

import hmac
from functools import lru_cache


def seed(key: bytes, participant_id: int, decision_index: int) -> int:
    """Return the seed of a decision, an integer in [0, 2^53): the first 8 bytes, big-endian, of the
    HMAC-SHA256 under the study key of the UTF-8 text "participant_id|decision_index", shifted right by 11."""
    message_hash = _keyed_hash(key).copy()
    message_hash.update(f"{participant_id}|{decision_index}".encode())
    return int.from_bytes(message_hash.digest()[:8], "big") >> 11


# setting up the hash with its key is most of the work, so it is kept and copied
@lru_cache(maxsize=256)
def _keyed_hash(key: bytes) -> hmac.HMAC:
    """Return the hash that has taken in the key and no message yet. Callers copy it."""
    return hmac.new(key, digestmod="sha256")


def action(seed: int, act_prob: float) -> int:
    """Return 1 if seed / 2^53 < act_prob, else 0."""
    # the quotient is exact: float64 holds 53 bits, and the division only changes the exponent
    return 1 if seed / 2**53 < act_prob else 0
