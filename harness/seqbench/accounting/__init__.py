"""What a model has and costs, and the width at which it has as many parameters as were asked for."""
