"""The verbs of `mirsweep`, one a file; each module imports nothing heavy by itself."""
