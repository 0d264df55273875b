"""How recordings lie on disk: neutral ground for the source that reads and the sink that writes."""
