"""The backend on MLX. The files of this package are the only ones that import `mlx` or `mlx_lm`.

`runner` is the backend, `batcher` the adapter over mlx-lm's batching (and the one place that leans on its private
parts), `sampling` draws the tokens, `loading` turns a folder into a model.
"""

from mlx_runtime.engine.runner import MlxBackend

__all__ = ["MlxBackend"]
