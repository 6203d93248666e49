"""The probability of a message, from the population's posterior and the participant's own rows."""

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

NODES = np.linspace(-8, 8, 801)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()


@jax.jit
def message_probability(
    beta: jax.Array,
    features: jax.Array,
    A: jax.Array,
    b: jax.Array,
    L: jax.Array,
    noise_variance: jax.Array,
    curve: jax.Array,
    size: jax.Array,
) -> jax.Array:
    """Return E[rho(x)], x normal with the advantage's posterior mean and variance at `features` (q,).

    `beta` is tp (p,) followed by the upper triangle of S^-1 / size; `A` (p, p) and `b` (p,) are the
    statistics of the participant's own rows in the fit, zero for a participant who is not in it; `L` (p, p)
    factors Sigma_u; `noise_variance` and `size` (1,); `curve` is lower, upper, B, C. Rows that no policy
    decided have lower = upper = the probability that was used."""
    p, q = len(b), len(features)
    upper = jnp.zeros((p, p)).at[jnp.triu_indices(p)].set(beta[p:])
    precision = size[0] * (upper + jnp.triu(upper, 1).T)
    K = noise_variance[0] * jnp.eye(p) + L.T @ A @ L
    M = L @ jnp.linalg.solve(K, L.T)
    G = (jnp.eye(p) - M @ A)[-q:]
    mean = features @ (G @ beta[:p] + (M @ b)[-q:])
    V = G @ jnp.linalg.solve(precision, G.T) + noise_variance[0] * M[-q:, -q:]
    lower, top, B, C = curve
    variance = features @ V @ features
    # the derivative of the root at 0 is infinite, and jax would multiply it by 0 to NaN
    sd = jnp.sqrt(jnp.where(variance > 0, variance, 1.0)) * (variance > 0)
    share = WEIGHTS @ jax.nn.sigmoid(B * (mean + sd * NODES) - jnp.log(C))
    return jnp.asarray(lower + (top - lower) * share)
