"""Real, unmodified clients against a real service."""
