"""The deterministic core: one component, one file; they meet in the node."""
