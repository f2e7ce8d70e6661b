"""Many clips from a list of jobs: in one process, in the processes of torchrun, or on Ray."""
