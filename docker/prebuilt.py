"""Let Numba use the read-only cache that the image build made; NUMBA_CACHE_LOCATOR_CLASSES names this module."""

from __future__ import annotations

from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class Prebuilt(UserProvidedCacheLocator):
    """Locates the cache in NUMBA_CACHE_DIR also where that is not writable, which Numba's own locator requires."""

    def ensure_cache_path(self) -> None:
        """Create the folder during the image build; later it exists."""
        Path(self._cache_path).mkdir(parents=True, exist_ok=True)
