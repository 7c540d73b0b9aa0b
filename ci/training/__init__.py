"""Trains, measures and times the worker's built-in model. Not part of what is installed."""
