"""Trainers: blocks that make new weights of what they see, while a flow runs."""
