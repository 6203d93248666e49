"""The weighted and centred least squares whose minimum is the effect of a message."""

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]


@jax.jit
def weighted_loss(
    theta: jax.Array,
    outcome: jax.Array,
    action: jax.Array,
    act_prob: jax.Array,
    counted: jax.Array,
    numerator: jax.Array,
    controls: jax.Array,
    moderators: jax.Array,
) -> jax.Array:
    """Return a participant's share of half the weighted sum of squares. `theta` holds the coefficients of
    `controls` (T, q) and then of `moderators` (T, p); all other arguments are (T, 1). Rows that are not
    `counted` add nothing."""
    # rows that do not count may have a probability of 0, and a division by it would spoil the derivative
    safe = jnp.where(counted == 1, act_prob, 0.5)
    W = jnp.where(action == 1, numerator / safe, (1 - numerator) / (1 - safe)) * counted
    D = jnp.hstack([controls, (action - numerator) * moderators])
    return 0.5 * jnp.sum(W[:, 0] * (outcome[:, 0] - D @ theta) ** 2)
