"""The only place that talks to DeepSpeed: its dictionary, its engine, its state."""
