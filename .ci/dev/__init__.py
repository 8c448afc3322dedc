"""Programs that people call on their own machine, through the targets of the Makefile."""
