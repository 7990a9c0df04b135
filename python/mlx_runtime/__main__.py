"""`python -m mlx_runtime --socket PATH`: one runtime process for one agent.

It owns the command line alone. The hub is switched off before anything could import its client: a runtime loads local
folders and never reaches for the network.
"""

import argparse
import os


def main() -> None:
    """Parse, then serve until the end."""
    parser = argparse.ArgumentParser(prog="mlx_runtime", description=__doc__)
    parser.add_argument("--socket", required=True, help="the agent's Unix socket to connect to")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    from mlx_runtime.engine import MlxBackend  # noqa: PLC0415 - the environment must be set before the import
    from mlx_runtime.server import serve  # noqa: PLC0415

    serve(arguments.socket, MlxBackend())


if __name__ == "__main__":
    main()
