"""What programs talk to a cluster with: one sans-IO session and two thin shells."""
