"""From information bits to sent symbols."""
