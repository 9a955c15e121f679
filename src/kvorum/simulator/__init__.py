"""The other world: many nodes on one virtual clock, one random stream, one queue."""
