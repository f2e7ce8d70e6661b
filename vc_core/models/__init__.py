"""The networks, under the published checkpoints' names."""
