"""Where the runs of an experiment are done: on this machine, on a Ray cluster, or as jobs of Slurm."""
