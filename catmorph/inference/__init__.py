"""From stamps to logits: fixed batches through a trained network."""
