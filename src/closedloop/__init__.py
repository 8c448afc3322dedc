"""Closed Loop: the library for anomaly detection and predictive maintenance. An import has no side effect."""
