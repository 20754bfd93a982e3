"""A decoder of recurrent layers whose transition is unitary."""
