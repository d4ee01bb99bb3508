"""Training: one loop for all stages. A stage is its batches and its loss; both arrive as arguments."""
