"""What answers: the anomaly head, the failure heads, and the bundle that stores them with its drift reference."""
