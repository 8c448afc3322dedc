"""What a row at time t knows (features), and what it should foresee (labels)."""
