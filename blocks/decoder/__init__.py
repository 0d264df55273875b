"""From soft bits to information bits."""
