"""Adapters: networks with weights of their own, loaded with a model, that act on the UNet by hooks."""
