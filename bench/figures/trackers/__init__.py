"""Errors of all trackers on all models."""
