"""Many runs: which they are, in processes of their own, and whether their results may be compared."""
