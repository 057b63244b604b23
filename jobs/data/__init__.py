"""Sources of captioned pictures, their mixture, and batches made of them."""
