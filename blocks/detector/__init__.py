"""From samples to symbols."""
