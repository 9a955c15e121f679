"""Values and arithmetic of the store: no time, no messages, no I/O."""
