"""Where streams start: simulators and recordings."""
