"""From a request to a plan: all that decides a run's numbers, and what the run will need."""
