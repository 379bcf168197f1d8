"""Side modules: small networks whose output travels in the file beside the latents of a base model."""
