"""What is one run? Model, data, the DeepSpeed loop, checkpoints, scoring during training."""
