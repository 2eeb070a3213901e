"""Training: one loop, and the state that survives a kill."""
