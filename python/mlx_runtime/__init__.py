"""One loaded model in one process, spoken to over a Unix socket.

The package is a thin shell (`server`, `inbox`, `outbox`) around a step loop (`loop`) that drives a pure batch
(`batch`), a pure prefix cache (`prefix_cache`, over `prefix_index`) and a backend (`backend`). The real backend is
`engine`, the only part that imports MLX; `tests/fake_runtime` brings another one and shares everything else.
"""

PROTOCOL = 1
VERSION = "0.1.0"
