"""A participant's share of the equations that a fit of the policy solves."""

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]


@jax.jit
def policy_update(
    beta: jax.Array,
    features: jax.Array,
    action: jax.Array,
    act_prob: jax.Array,
    slot: jax.Array,
    outcome: jax.Array,
    mean: jax.Array,
    precision: jax.Array,
    L: jax.Array,
    scalars: jax.Array,
) -> jax.Array:
    """Return the participant's share of the two equations of the population's posterior, p + p (p + 1) / 2
    numbers:

        sum_i g_i - J_i tp + Sigma^-1 (mu - tp) = 0        Sigma^-1 + sum_i J_i - S^-1 = 0

    `beta` is tp (p,) followed by the upper triangle of S^-1 / size; `features` (n, q), `action`,
    `act_prob`, `slot` and `outcome` (n, 1) are the participant's rows in the fit; `mean` and `precision`
    (p,) are the prior's, `L` (p, p) factors Sigma_u, `scalars` are the noise variance, the number of
    participants in the fit, and size."""
    p = len(mean)
    noise, fitted, size = scalars
    phi = jnp.hstack([features, act_prob * features, (action - act_prob) * features])
    A, b = phi.T @ phi, phi.T @ outcome[:, 0]
    M = L @ jnp.linalg.solve(noise * jnp.eye(p) + L.T @ A @ L, L.T)
    J, g = (A - A @ M @ A) / noise, (b - A @ M @ b) / noise
    tp, packed = beta[:p], beta[p:]
    # each participant in the fit carries an equal share of the prior
    first = g - J @ tp + precision * (mean - tp) / fitted
    second = (J + jnp.diag(precision) / fitted)[jnp.triu_indices(p)] - size * packed / fitted
    return jnp.concatenate([first, second])
