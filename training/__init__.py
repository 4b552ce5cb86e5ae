"""Training: data, recipes, losses, schedules, callbacks."""
