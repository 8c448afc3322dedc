"""The request log of a service: writing it, shipping it, and inspecting it on disk."""
