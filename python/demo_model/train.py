"""Trains the demo model and writes its folder: `python -m demo_model.train`.

Owns the optimizer, the schedule and the order of work; one seed and one thread make the
run repeatable. Refuses to write checkpoints: the only output is the finished folder.
"""

# JAX leaves parts of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from functools import partial
from pathlib import Path

# Must be set before JAX starts: one thread, so that sums are taken in one order.
os.environ["NPROC"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["JAX_PLATFORMS"] = "cpu"
if sys.platform == "linux":
    # glibc returns each step's large buffers to the kernel, and clearing them anew costs a
    # third of the time: no mmap (-4), no trimming (-1), one arena (-8).
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):
        ctypes.CDLL(None).mallopt(option, value)

import jax
import jax.numpy as jnp

from demo_model.batches import Batch, Composer
from demo_model.export import export_folder
from demo_model.facts import Facts, load_facts
from demo_model.model import Params, Shape, forward, init_params
from demo_model.tokenizer import train_tokenizer

SHORT_ROWS, SHORT_LENGTH = 16, 256
LONG_ROWS, LONG_LENGTH, LONG_EVERY = 3, 1024, 12
LEARNING_RATE = 4e-3
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.3
BETA_1, BETA_2 = 0.9, 0.98
GRADIENT_NORM_MAX = 1.0
# The written weights are a running mean: smoother than the last step's.
AVERAGE_KEEP = 0.995

State = tuple[Params, Params, Params, Params]


def main() -> None:
    """Parse the command line, train, export, and print what was made."""
    parser = argparse.ArgumentParser(description="Train the mlx-serving demo model.")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--seed", type=int, default=7440)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"))
    arguments = parser.parse_args()
    facts = load_facts()
    tokenizer = train_tokenizer(tokenizer_text(facts))
    shape = Shape(vocab=tokenizer.get_vocab_size())
    composer = Composer(facts, tokenizer, arguments.seed)
    params = train(shape, composer, arguments.seed, arguments.steps)
    digest = export_folder(arguments.out, shape, params, tokenizer)
    count = sum(weight.size for weight in params.values())
    print(f"{len(facts.facts)} facts, {count} parameters, model.safetensors sha256 {digest}")


def tokenizer_text(facts: Facts) -> list[str]:
    """Answers and questions; answers twice, for they are what must be short in tokens."""
    texts: list[str] = []
    for fact in facts.facts:
        texts += [fact.answer, fact.answer, *fact.questions]
        texts += [question.lower() for question in fact.questions]
    return texts + ["user\n", "assistant\n", "system\n", "tool\n"] * 20


def train(shape: Shape, composer: Composer, seed: int, steps: int) -> Params:
    """Run the schedule and return the averaged weights."""
    params = init_params(shape, jax.random.key(seed))
    first = {name: jnp.zeros_like(weight) for name, weight in params.items()}
    second = {name: jnp.zeros_like(weight) for name, weight in params.items()}
    # Copies, not references: the step donates all four buffers.
    average = {name: jnp.copy(weight) for name, weight in params.items()}
    state: State = (params, first, second, average)
    started = time.monotonic()
    mean_loss = 0.0
    for step in range(steps):
        if step % LONG_EVERY == LONG_EVERY - 1:
            batch = composer.long_batch(LONG_ROWS, LONG_LENGTH)
        else:
            batch = composer.short_batch(SHORT_ROWS, SHORT_LENGTH)
        state, loss = train_step(shape, steps, state, jnp.int32(step), *_arrays(batch))
        mean_loss = 0.95 * mean_loss + 0.05 * float(loss) if step else float(loss)
        if step % 100 == 99 or step == steps - 1:
            print(f"step {step + 1} loss {mean_loss:.4f} {time.monotonic() - started:.0f} s", flush=True)
    return state[3]


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,))
def train_step(
    shape: Shape,
    steps: int,
    state: State,
    step: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    weights: jax.Array,
) -> tuple[State, jax.Array]:
    """One AdamW step with clipping; returns the new state and the mean loss."""
    params, first, second, average = state
    loss, gradients = jax.value_and_grad(_loss)(params, shape, tokens, positions, segments, weights)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
    clip = jnp.minimum(1.0, GRADIENT_NORM_MAX / (norm + 1e-9))
    rate = _learning_rate(step, steps)
    count = step.astype(jnp.float32) + 1
    keep = jnp.minimum(AVERAGE_KEEP, count / (count + 10))
    for name in params:
        gradient = gradients[name] * clip
        first[name] = BETA_1 * first[name] + (1 - BETA_1) * gradient
        second[name] = BETA_2 * second[name] + (1 - BETA_2) * gradient**2
        update = first[name] / (1 - BETA_1**count)
        update /= jnp.sqrt(second[name] / (1 - BETA_2**count)) + 1e-8
        decay = WEIGHT_DECAY if params[name].ndim > 1 else 0.0
        params[name] = params[name] - rate * (update + decay * params[name])
        average[name] = keep * average[name] + (1 - keep) * params[name]
    return (params, first, second, average), loss


def _loss(
    params: Params,
    shape: Shape,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    logits = forward(params, shape, tokens[:, :-1], positions[:, :-1], segments[:, :-1])
    targets = tokens[:, 1:, None]
    chosen = jnp.take_along_axis(logits, targets, axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    weights = weights[:, 1:]
    return jnp.sum(losses * weights) / jnp.sum(weights)


def _learning_rate(step: jax.Array, steps: int) -> jax.Array:
    warm = (step + 1) / WARMUP_STEPS
    cosine = 0.5 + 0.5 * jnp.cos(jnp.pi * step / steps)
    return LEARNING_RATE * jnp.minimum(warm, 0.02 + 0.98 * cosine)


def _arrays(batch: Batch) -> tuple[jax.Array, ...]:
    arrays = (batch.tokens, batch.positions, batch.segments, batch.loss)
    return tuple(jnp.asarray(array) for array in arrays)


if __name__ == "__main__":
    main()
