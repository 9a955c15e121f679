"""What kvorum's speed is measured with, and against: see README.md."""
