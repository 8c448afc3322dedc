"""Has the world moved, and is the model as good as promised: what became of the labels, drift, and live quality."""
