"""After pre-training: fine-tuning from a checkpoint, and evaluation of one."""
