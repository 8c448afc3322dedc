"""The request log as the service keeps and ships it."""
