"""Image and video files, and frames."""
