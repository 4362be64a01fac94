"""The ways out: routes, their state and checks, advice and explanations."""
