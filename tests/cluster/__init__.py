"""Black-box tests of real processes: coordinators, agents, runtimes."""

import sys
from pathlib import Path

# What a fake runtime answers is computed here as well, with its own code.
sys.path.append(str(Path(__file__).resolve().parents[2] / "python"))
