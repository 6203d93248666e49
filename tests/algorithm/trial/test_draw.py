"""The draw, recomputed from the standard's definition of HMAC."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from algorithm.trial import draw


def defined(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 as RFC 2104 defines it."""
    padded = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


@given(st.binary(max_size=100), st.integers(1, 10**9), st.integers(1, 10**5))
def test_the_seed_is_the_first_53_bits_of_the_hmac(key: bytes, participant_id: int, index: int) -> None:
    bits = "".join(f"{byte:08b}" for byte in defined(key, f"{participant_id}|{index}".encode()))
    assert draw.seed(key, participant_id, index) == int(bits[:53], 2)


def test_a_published_vector() -> None:
    """RFC 4231, test case 2, begins 5bdcc146bf60754e."""
    assert defined(b"Jefe", b"what do ya want for nothing?").hex().startswith("5bdcc146bf60754e")


@given(st.integers(0, 2**53 - 1), st.floats(0, 1))
def test_the_action_is_one_comparison(seed: int, act_prob: float) -> None:
    assert draw.action(seed, act_prob) == (1 if seed < act_prob * 2**53 else 0)


def test_certain_probabilities() -> None:
    for seed in (0, 1, 2**53 - 1):
        assert draw.action(seed, 0.0) == 0
        assert draw.action(seed, 1.0) == 1
    assert draw.action(2**52, 0.5) == 0
    assert draw.action(2**52 - 1, 0.5) == 1


def test_seeds_are_distinct_and_even() -> None:
    seeds = [draw.seed(b"key", person, index) for person in range(1, 101) for index in range(1, 61)]
    assert len(set(seeds)) == 6000
    for probability in (0.2, 0.5, 0.8):
        share = sum(draw.action(seed, probability) for seed in seeds) / 6000
        assert abs(share - probability) < 4 * (probability * (1 - probability) / 6000) ** 0.5
    assert draw.seed(b"key", 1, 11) != draw.seed(b"key", 11, 1)
    assert draw.seed(b"key", 1, 1) != draw.seed(b"kez", 1, 1)
