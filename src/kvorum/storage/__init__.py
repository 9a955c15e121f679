"""Where records live: one write path of overlay and log, in front of any engine."""
