"""The pages of the service: page, documentation, OpenAPI."""
