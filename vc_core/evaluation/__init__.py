"""Measuring videos that were made."""
