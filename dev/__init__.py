"""Tools for developing the pack: a real ComfyUI to run it in, graphs, the demo. Not part of the pack itself."""
