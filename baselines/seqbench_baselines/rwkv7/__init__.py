"""RWKV-7: a matrix per head whose transition is a diagonal less a product of two vectors."""
