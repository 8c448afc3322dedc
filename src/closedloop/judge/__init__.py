"""Is it good, is it better, has the world moved: episodes, gate, report."""
