"""Your own features: one plain NumPy function of a machine's window each. See :func:`~.registry.feature`."""

from __future__ import annotations
