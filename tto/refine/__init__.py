"""Test-time optimization: moves one picture's latents so that its file gets better for the same decoder."""
