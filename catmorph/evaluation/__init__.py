"""How good a checkpoint is: metrics, figures, calibration."""
