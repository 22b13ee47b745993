"""From survey tables to canonical sources: reading, mapping, cutting, and the chunk plan."""
