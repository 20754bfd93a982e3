"""Training: one loop, one optimizer set-up and one schedule for every model."""
