"""Where branches end: counting, recording, nothing."""
