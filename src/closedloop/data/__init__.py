"""The five tables, from anywhere: schema, readers, simulator, expectations, requests."""
