"""What development tools, tests and benchmarks share: a ComfyUI server, graphs, recorded numbers, judges."""
