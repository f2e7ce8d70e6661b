"""The noise schedule, guidance and the sampler."""
