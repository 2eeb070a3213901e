"""Parts of networks: blocks, resampling, nodes, encoders, heads, and the executor of any topology."""
