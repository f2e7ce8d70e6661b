"""The core's models as models of ComfyUI's. All code that uses ComfyUI's internals is in this folder."""
