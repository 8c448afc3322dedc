"""The online verbs: the scoring contract and the service around it."""
