"""The cost of a fit: seconds and peak memory by the number of participants, and beside dense linear algebra.

    python -m benchmarks.learner --sizes 120 1000 10000 100000 1000000

Every measurement runs in a process of its own, with one BLAS thread; blocks of participants are shared by
--threads threads. Rows are simulated: 60 decisions each, rewards by the model, with participants who differ
much in some coefficients and hardly in others, which is the slow case for hyper-parameters. Prints
Markdown tables."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from tqdm import tqdm

from algorithm.core.arrays import Mapper
from algorithm.trial import evidence, learner
from algorithm.trial.hyperparameters import Evidence, fit_hyperparameters
from algorithm.trial.learning_rows import Rows
from algorithm.trial.protocol import load
from algorithm.trial.sufficient_statistics import Statistics, Trial, arrange, blocks, observations, statistics
from tests.support import dense

PROTOCOL = load({"protocol": "miwaves"})
DECISIONS = 60
CONVERGED = 10_000
"""The largest number of participants whose hyper-parameters are fitted on all of them; beyond, a subsample of
this size serves."""
DENSE = (30, 60, 120, 240)
STAGES = ("statistics", "posterior", "gradient", "hyperparameters")
P, Q = 24, 8
FLOPS = {
    "statistics": 2 * DECISIONS * P * (P + 1),
    "posterior": 4 * P**3 + P**3 / 3 + P**3 + 4 * P**2 * (P + 1) + 2 * Q * P * (2 * P + 2 * Q + 1),
}


def simulated_rows(m: int) -> Rows:
    """Simulate 60 rows for each of m participants."""
    # in narrow types and a part of the participants at a time, or a million of them would need 10 GB
    generator = np.random.default_rng(m)
    N = m * DECISIONS
    states = generator.integers(0, 2, (N, 3), dtype=np.int8)
    act_prob = generator.uniform(0.2, 0.8, N)
    action = (generator.random(N, dtype=np.float32) < act_prob).astype(np.int8)
    participant = np.repeat(np.arange(m, dtype=np.int32), DECISIONS)
    rows = Rows(participant, states, act_prob, action, np.zeros(N))
    trial = arrange(PROTOCOL.design, rows, m)
    population = generator.normal(PROTOCOL.prior.mean, PROTOCOL.prior.sd)
    sd = np.sqrt(generator.uniform(0.001, 0.2, P))
    for start in tqdm(range(0, m, 5000), desc=f"rows of {m:,}", disable=m < 100_000):
        count = min(5000, m - start)
        part = slice(start * DECISIONS, (start + count) * DECISIONS)
        theta = np.repeat(generator.normal(population, sd, (count, P)), DECISIONS, axis=0)
        phi = observations(trial, np.arange(part.start, part.stop))[:, :P]
        rows.reward[part] = (phi * theta).sum(axis=1) + generator.normal(0, 1.1, count * DECISIONS)
    return rows


def collect(trial: Trial, parallel: Mapper) -> int:
    """Compute all statistics, one block after the other, and return the number of rows in them."""
    return sum(parallel(lambda members: int(statistics(trial, members).n.sum()), blocks(trial.members)))


def gradient_step(trial: Trial, stored: list[Statistics] | None, parallel: Mapper) -> None:
    """Compute the evidence and its gradient once, from stored statistics or (None) with them."""
    L, s2 = 0.1 * np.eye(P), PROTOCOL.prior.noise_variance
    if stored is not None:
        evidence.penalised(PROTOCOL, stored, L, s2, parallel)
        return
    moments = parallel(
        lambda members: evidence.moments(L, s2, statistics(trial, members)), blocks(trial.members)
    )
    evidence.gradient(reduce(add, moments), PROTOCOL.prior, L, s2)


def best(action: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return the least seconds of `repeats` runs, by the clock and of all threads' processor time."""
    wall, cpu = [], []
    for _ in range(repeats):
        start, before = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - before)
    return {"seconds": min(wall), "cpu": min(cpu)}


def measure(stage: str, m: int, threads: int) -> dict[str, Any]:
    """Measure one stage at m participants: seconds, and memory or steps where the stage has them."""
    if stage == "rate":  # 256 products of 24 x 24 matrices
        left, right = np.random.default_rng(0).normal(size=(2, 256, P, P))
        return best(lambda: left @ right, 200)
    rows = simulated_rows(m)
    if stage == "dense":
        phi, start = dense.design_matrix(PROTOCOL, rows), learner.start(PROTOCOL)
        arguments = (rows.reward, rows.participant, m, PROTOCOL.prior, start.sigma_u, start.noise_variance)
        return best(lambda: dense.stacked(phi, *arguments), 2)
    parallel: Mapper = ThreadPoolExecutor(threads).map if threads > 1 else map
    repeats = 20 if m <= 240 else 3 if m <= 10_000 else 1
    if stage == "statistics":
        result = best(lambda: collect(arrange(PROTOCOL.design, rows, m), parallel), repeats)
    elif stage == "posterior":
        result = best(lambda: learner.fit(PROTOCOL, rows, m, parallel=parallel), repeats)
    elif stage == "gradient":
        trial = arrange(PROTOCOL.design, rows, m)
        stored = [statistics(trial, members) for members in blocks(trial.members)] if m <= CONVERGED else None
        result = best(lambda: gradient_step(trial, stored, parallel), repeats)
    else:
        return _converge(rows, m, parallel)
    return {**result, "memory": _peak()}


def _converge(rows: Rows, m: int, parallel: Mapper) -> dict[str, Any]:
    """Measure a fit of the hyper-parameters until it converges, once."""
    results: list[Evidence | None] = []
    times = best(
        lambda: results.append(fit_hyperparameters(PROTOCOL, rows, m, parallel=parallel).evidence), 1
    )
    fitted = results[0]
    assert fitted is not None
    course = {"steps": len(fitted.path), "converged": fitted.converged, "used": fitted.participants}
    return {**times, "memory": _peak(), **course}


def _peak() -> float:
    """Return this process's peak resident memory in GB."""
    unit = 1024 if sys.platform == "linux" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def child(stage: str, m: int, threads: int, blas: int = 1) -> dict[str, Any]:
    """Run `measure` in a process of its own, with `blas` BLAS threads, and return its result."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.learner",
        "--measure",
        stage,
        str(m),
        "--threads",
        str(threads),
    ]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(blas)}
    root = Path(__file__).parent.parent
    process = subprocess.run(command, env=environment, cwd=root, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def scaling_table(results: dict[tuple[str, int], dict[str, Any]], sizes: list[int], rate: float) -> str:
    """Return the table of seconds, processor seconds and memory by stage and size.

    rate: flops a second of all threads in matrix products.
    """
    columns = ("participants", *STAGES, "hyper-parameter steps", "posterior, of matmul rate")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for m in sizes:
        cells = [
            f"{result['seconds']:.3g} s ({result['cpu']:.3g} s, {result['memory']:.2f} GB)"
            for result in (results[stage, m] for stage in STAGES)
        ]
        fitted = results["hyperparameters", m]
        steps = f"{fitted['steps']}" + ("" if fitted["converged"] else ", not converged")
        used = "" if fitted["used"] == m else f" ({fitted['used']:,} participants)"
        share = sum(FLOPS.values()) * m / results["posterior", m]["cpu"] / rate
        lines.append(f"| {m:,} | {' | '.join(cells)} | {steps}{used} | {share:.0%} |")
    return "\n".join(lines)


def exponent(results: dict[tuple[str, int], dict[str, Any]], sizes: list[int], stage: str) -> float:
    """Return the slope of log seconds against log participants, from 1,000 participants up."""
    large = [m for m in sizes if m >= 1000]
    seconds = [results[stage, m]["seconds"] for m in large]
    return float(np.polyfit(np.log(large), np.log(seconds), 1)[0])


def dense_table(threads: int) -> str:
    """Return the table of the dense formula beside the fit, for sizes whose matrices fit in memory."""
    lines = ["| participants | dense s | posterior and slices s | ratio |", "|---|---|---|---|"]
    for m in tqdm(DENSE, desc="dense"):
        slow = child("dense", m, threads, blas=os.cpu_count() or 1)["seconds"]
        fast = child("posterior", m, threads)["seconds"]
        lines.append(f"| {m} | {slow:.3g} | {fast:.3g} | {slow / fast:,.0f} |")
    return "\n".join(lines)


def report(sizes: list[int], threads: int) -> str:
    """Make all measurements and return them as Markdown."""
    planned = [(stage, m) for m in sizes for stage in STAGES]
    results = {(stage, m): child(stage, m, threads) for stage, m in tqdm(planned, desc="stages")}
    rate = 2 * 256 * P**3 / child("rate", 0, 1)["seconds"]  # flops a second of one thread
    lines = [
        scaling_table(results, sizes, rate * threads),
        "",
        f"{threads} threads of {rate / 1e9:.1f} Gflop/s each.",
    ]
    if sum(m >= 1000 for m in sizes) > 1:
        slopes = ", ".join(f"{stage} {exponent(results, sizes, stage):.2f}" for stage in STAGES[:3])
        lines.append(f"Growth exponents from 1,000 participants up: {slopes}.")
    return "\n".join([*lines, "", dense_table(threads)])


def main() -> None:
    parser = argparse.ArgumentParser(description="What a fit costs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[120, 1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--measure", nargs=2, metavar=("STAGE", "M"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        stage, m = options.measure
        print(json.dumps(measure(stage, int(m), options.threads)))
    else:
        print(report(options.sizes, options.threads))


if __name__ == "__main__":
    main()
