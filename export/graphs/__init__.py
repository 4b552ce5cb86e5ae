"""Graphs that every format holds, and rewrites of their layers for the converters."""
