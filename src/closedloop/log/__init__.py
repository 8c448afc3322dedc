"""What was asked and answered, durably."""
