"""An always-writable, replicated key-value store: Dynamo, complete, in Python."""
