"""Training of checkpoints from labelled stamps; needs the extra ``train``."""
