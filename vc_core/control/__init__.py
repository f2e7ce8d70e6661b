"""What moves in a video: cameras and trajectories, as plain data. No model is known here."""
