"""VRT as the paper describes it: window attention, blocks, stages, alignment, SpyNet (arXiv 2201.12288)."""
