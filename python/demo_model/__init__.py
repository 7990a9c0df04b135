"""The demo model: its facts, its training and its weights. Owns no code of the service."""
