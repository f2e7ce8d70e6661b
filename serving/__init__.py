"""Examples of serving: a web page on Ray Serve, and a script that queues prompts at a running ComfyUI."""
