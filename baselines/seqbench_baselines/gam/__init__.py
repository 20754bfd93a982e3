"""A decoder whose memory is a table of the model's own: a negative control."""
