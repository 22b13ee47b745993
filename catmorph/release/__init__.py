"""From sources and logits to the released catalog, its data dictionary and its summary."""
