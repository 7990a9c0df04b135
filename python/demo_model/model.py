"""The demo model's network in JAX: a small Llama, named as mlx-lm names it.

Owns the shape, the initial weights and the forward pass used in training. Parameters are
one flat dictionary under the checkpoint's own names, so export is a plain copy. Refuses
everything a 1-million-parameter Llama has no use for: no dropout, no cache, no sharding.
"""

# JAX leaves parts of its signatures untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

Params = dict[str, jax.Array]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; the defaults give 0.92 million parameters."""

    vocab: int = 1024
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 384
    positions: int = 32768
    # Training jumps positions up to `positions`; 500,000 keeps the slow half of the
    # rotations within one turn over that range.
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5


def init_params(shape: Shape, key: jax.Array) -> Params:
    """Normal weights of scale 1/sqrt(fan-in); the two residual outputs are scaled down."""
    shapes = weight_shapes(shape)
    params: Params = {}
    for name, key_of_weight in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        dims = shapes[name]
        if len(dims) == 1:
            params[name] = jnp.ones(dims, jnp.float32)
            continue
        scale = 0.05 if "embed" in name else dims[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            scale /= (2 * shape.layers) ** 0.5
        params[name] = scale * jax.random.normal(key_of_weight, dims, jnp.float32)
    return params


def weight_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint with its dimensions, in a fixed order."""
    q, kv, h = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.hidden
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, h)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = (h,)
        shapes[at + "self_attn.q_proj.weight"] = (q, h)
        shapes[at + "self_attn.k_proj.weight"] = (kv, h)
        shapes[at + "self_attn.v_proj.weight"] = (kv, h)
        shapes[at + "self_attn.o_proj.weight"] = (h, q)
        shapes[at + "post_attention_layernorm.weight"] = (h,)
        shapes[at + "mlp.gate_proj.weight"] = (shape.ffn, h)
        shapes[at + "mlp.up_proj.weight"] = (shape.ffn, h)
        shapes[at + "mlp.down_proj.weight"] = (h, shape.ffn)
    shapes["model.norm.weight"] = (h,)
    return shapes


def forward(params: Params, shape: Shape, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
    """Logits [rows, length, vocab]; a token sees only earlier tokens of its own segment."""
    x = params["model.embed_tokens.weight"][tokens]
    length = tokens.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    mask = causal & (segments[:, :, None] == segments[:, None, :])
    cos, sin = _rotations(shape, positions)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        normed = _rms_norm(x, params[at + "input_layernorm.weight"], shape)
        x = x + _attention(params, at + "self_attn.", shape, normed, cos, sin, mask)
        normed = _rms_norm(x, params[at + "post_attention_layernorm.weight"], shape)
        gate = jax.nn.silu(normed @ params[at + "mlp.gate_proj.weight"].T)
        up = normed @ params[at + "mlp.up_proj.weight"].T
        x = x + (gate * up) @ params[at + "mlp.down_proj.weight"].T
    x = _rms_norm(x, params["model.norm.weight"], shape)
    return x @ params["model.embed_tokens.weight"].T


def _attention(
    params: Params,
    at: str,
    shape: Shape,
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    rows, length, _ = x.shape

    def project(name: str, heads: int) -> jax.Array:
        flat = x @ params[f"{at}{name}.weight"].T
        return flat.reshape(rows, length, heads, shape.head_dim).transpose(0, 2, 1, 3)

    query = _rotate(project("q_proj", shape.heads), cos, sin)
    key = _rotate(project("k_proj", shape.kv_heads), cos, sin)
    value = project("v_proj", shape.kv_heads)
    groups = shape.heads // shape.kv_heads
    query = query.reshape(rows, shape.kv_heads, groups * length, shape.head_dim)
    scores = query @ key.transpose(0, 1, 3, 2) * shape.head_dim**-0.5
    scores = scores.reshape(rows, shape.kv_heads, groups, length, length)
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1)
    weights = weights.reshape(rows, shape.kv_heads, groups * length, length)
    mixed = (weights @ value).reshape(rows, shape.heads, length, shape.head_dim)
    mixed = mixed.transpose(0, 2, 1, 3).reshape(rows, length, shape.heads * shape.head_dim)
    return mixed @ params[f"{at}o_proj.weight"].T


def _rotations(shape: Shape, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    half = shape.head_dim // 2
    frequencies = shape.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    # The two halves turn against each other, as mlx-lm's default (non-traditional) RoPE does.
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _rms_norm(x: jax.Array, weight: jax.Array, shape: Shape) -> jax.Array:
    variance = jnp.mean(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + shape.norm_eps) * weight
