"""Devices and the processor."""
