"""The scoring contract, ``score.py``, and the service around it."""
