"""Vision encoder, projector and language model as one module."""
