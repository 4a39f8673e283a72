"""Parts that data and models share: options, spike files, distribution, checkpoints, logs, metrics, tiles."""
