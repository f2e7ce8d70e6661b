"""Adapters: networks with weights of their own, loaded beside a model, that look in at the UNet's places by hooks."""
