"""Training: one loop for all stages. A stage is a loss, its batches, and the text printed about them."""
