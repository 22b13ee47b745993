"""catmorph: from survey catalogs and mosaics to released catalogs of morphology."""
