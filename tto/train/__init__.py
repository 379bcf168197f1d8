"""Training: recipes, and the engine that runs them. `python -m tto.train RECIPE` starts it."""
