"""How the core's models live under ComfyUI's management. All that touches ComfyUI's insides is in this folder."""
