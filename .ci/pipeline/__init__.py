"""Programs that workflows call, one for each make target in .ci/steps.mk that needs more than a line of make."""
