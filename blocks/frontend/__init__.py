"""What comes between the antenna and the detector."""
