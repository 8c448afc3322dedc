"""What a person reads about a model: report, card, plots and importance."""
