"""What data and models both use: options, spike files, distribution, checkpoints, logs, metrics, tiles."""
