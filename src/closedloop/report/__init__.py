"""What a person reads of a model: report, card, plots, importance."""
