"""Bytes between nodes and clients: messages, frames, batches."""
