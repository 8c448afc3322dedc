"""The five tables from any source: schema, readers, simulator, expectations, requests."""
