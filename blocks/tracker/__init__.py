"""Where states are estimated from observations: filters and smoothers."""
