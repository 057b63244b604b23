"""What would another policy have cost and found? The same controller, on recorded curves."""
