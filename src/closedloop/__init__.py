"""Closed Loop: the nouns of anomaly detection and predictive maintenance. Pure: nothing happens at import."""
