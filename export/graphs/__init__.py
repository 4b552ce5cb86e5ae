"""Graphs that every format holds, and how their layers are written for the converters."""
