"""Commands for people: data preparation, spike tools, benchmarks."""
