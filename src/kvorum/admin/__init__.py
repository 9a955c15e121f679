"""The administration port: health, metrics, and the page for people who run a cluster."""
