"""Black-box tests of real processes: coordinators, agents, runtimes."""
