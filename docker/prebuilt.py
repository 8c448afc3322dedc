"""Numba's cache as the image build left it. In the image this module is named by NUMBA_CACHE_LOCATOR_CLASSES."""

from __future__ import annotations

from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class Prebuilt(UserProvidedCacheLocator):
    """NUMBA_CACHE_DIR, which need not be writable; Numba's own locator gives up where it is not."""

    def ensure_cache_path(self) -> None:
        """Make the folder while the image is built; later it is there."""
        Path(self._cache_path).mkdir(parents=True, exist_ok=True)
