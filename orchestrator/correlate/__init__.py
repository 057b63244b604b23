"""Holding MIR against what comes after: a study's trials fine-tuned, evaluated, compared."""
