"""What happens to symbols on their way to the receiver."""
