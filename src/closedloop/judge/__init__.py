"""How a model is judged: labels, split, holdout, alarm episodes, metrics, and the gate that compares two models."""
