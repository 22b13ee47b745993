"""From mosaics to stamps: pixels, world coordinates, resampling, normalisation and shards."""
